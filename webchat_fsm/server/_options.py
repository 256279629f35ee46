"""The options of the embedded chat server, with the defaults of a real one.

Options that would end or refuse a chat (liveness, idle timers, key checks) are off by default, so that a test meets
only the behaviour that it requested.
"""

from __future__ import annotations

import msgspec


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set about the server; durations are seconds, sizes are bytes."""

    # Access
    apikey: str | None = None
    """API key that every request must carry, as header `apikey` (v2) or `x-api-key` (v2, v3); None accepts all."""
    services: tuple[str, ...] = ()
    """Service names that exist (last part of the v2 URL or of the CometD channel); empty means any."""
    unknown_service_code: int | None = None
    """Error code sent with HTTP 400 for an unknown service (306 is the known one); None answers 404 without a body."""
    strict_ids: bool = False
    """Whether `userId` and `alias` must be right too, not only `secureKey`."""
    kick_on_wrong_key: bool = False
    """Whether a wrong `secureKey` removes the client from the chat, as Chat Server does (reason 8210)."""
    origins: tuple[str, ...] = ()
    """Browser origins allowed beside the loopback ones; `*` allows every origin."""

    # Chat
    max_message_length: int | None = None
    """Longest text in characters; a longer one is refused with error 204."""
    check_email: bool = False
    """Whether a start with an address without `@` is refused with error 364."""
    typing_in_refetch: bool = True
    """Whether typing events are still there when the whole transcript is asked for again."""
    read_receipt_notice: bool = True
    """Whether a read receipt leaves a `read-confirm` notice in the transcript."""
    bot_type: str = "Agent"
    """Wire type of a bot in v2, where its event attributes identify it; real servers are not known to send `Bot`."""

    # Timers
    liveness: float | None = None
    """The client is dropped after this long without any request of its own; Chat Server's default is 45."""
    idle_alert: float | None = None
    """Quiet time before the first IdleAlert; Chat Server's default is 255."""
    idle_alert_again: float | None = None
    """Quiet time between the first and a second IdleAlert; Chat Server's default is none."""
    idle_close: float | None = None
    """Quiet time between the last alert and IdleClose, which ends the chat; Chat Server's default is 45."""
    idle_alert_text: str = "Are you still there?"
    idle_close_text: str = "The chat is closed because it was quiet for too long."

    # Files
    max_files: int = 3
    max_file_size: int = 2_097_152
    max_total_size: int = 5_242_880
    file_types: tuple[str, ...] = ("jpeg", "jpg", "pdf", "png", "txt", "zip")
    """File name endings that may be uploaded in v2 and CometD, in lower case."""
    download_attempts: int = 10
    upload_needs_agent: bool = False
    sniff_multipart: bool = False
    """Whether a multipart body under another content type is read all the same; otherwise it is answered 415."""

    # Nexus v3
    endpoints: tuple[str, ...] = ()
    """Endpoints that exist; empty means any, though v3 insists on one being named."""
    image_types: tuple[str, ...] = ("image/png", "image/jpeg", "image/gif")
    token_ttl: float | None = None
    """Life of a client token; None means for ever and leaves `exp` out of it."""
    session_ttl: float | None = None
    """A v3 session without requests is removed after this long (404 INVALID_SESSION); None means never."""
    reopen_ended: bool = True
    """Whether resuming an ended v3 session opens it again; otherwise 404 INVALID_SESSION."""
    v3_custom_notice: bool = False
    v3_read_receipt: bool = False
    v3_hold: float = 0.0
    """How long a v3 poll without new events is held open."""

    # CometD
    connect_timeout: float = 30.0
    """How long a Bayeux connect is held; sent to the client in `advice`."""
    max_interval: float = 10.0
    """A Bayeux client without a held connect for this long is removed (402)."""
    reconnect_interval: float = 0.0
    """Pause that `advice` asks for between two connects."""
    websocket: bool = True
    """Whether the Bayeux URL can be upgraded to a websocket."""
    require_cookie: bool = False
    """Whether requests must carry the cookie of the handshake, 402 without it; that of another browser always is a 402.

    Over a websocket no cookie is checked.
    """
    unknown_client: str = "402::Unknown client"
    gateway_delay: float = 0.02
    """Time between the acknowledgement of an operation and its effect; 0 does it at once."""
    push_with_publish: bool = False
    """Whether queued messages may be returned with the answer to a publish too, not only with a connect."""
    notify_leaver: bool = True
    """Whether the client that publishes `disconnect` is still pushed its own ParticipantLeft."""

    seed: int = 1
    """Seed of all ids; the same seed and the same calls give the same bytes."""
