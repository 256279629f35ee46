"""Bytes and facts: one dialect a file, each turning calls into requests and answers into replies."""
