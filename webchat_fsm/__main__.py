"""``python -m webchat_fsm`` is the command ``webchat-fsm``."""

from __future__ import annotations

from webchat_fsm._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
