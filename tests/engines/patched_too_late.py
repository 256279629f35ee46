"""Child process: makes a service, then patches its threads, and prints the error that `open` raises."""

from __future__ import annotations

import sys
import warnings

from tests.engines.patching import patch
from webchat_fsm import WebChatError, WebChatService

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    chat = WebChatService({"dataURL": "http://127.0.0.1:9/chat"})
    patch(sys.argv[1])
    try:
        chat.open()
    except WebChatError as error:
        print(error)
