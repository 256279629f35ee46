"""Bayeux, sans-I/O: the connection of a pushed chat and the frames of a websocket, as bytes in and bytes out."""
