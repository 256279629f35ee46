"""Check the carrier of Bayeux messages after each event, cell by cell."""

from __future__ import annotations

from itertools import product

import pytest

from webchat_fsm._bayeux.socket import ROWS, Carrier, CarrierEvent, after

CHANGES = """
                       WEBSOCKET        LOSS_UNREPORTED  UNANSWERED    LONG_POLLING  NO_WEBSOCKET
HANDSHAKE              .                WEBSOCKET        LONG_POLLING  WEBSOCKET     .
HANDSHAKE_UNANSWERED   UNANSWERED       .                .             .             .
UPGRADE_REFUSED        NO_WEBSOCKET     .                NO_WEBSOCKET  .             .
LONG_POLLING_ANSWERED  LONG_POLLING     .                .             .             .
LOSS                   LOSS_UNREPORTED  .                .             .             .
LOSS_REPORTED          .                WEBSOCKET        .             .             .
"""
HEAD, *LINES = (line.split() for line in CHANGES.strip().splitlines())
CELLS = [(source, event, dest) for event, *dests in LINES for source, dest in zip(HEAD, dests, strict=True)]


@pytest.mark.parametrize(("source", "event", "dest"), CELLS)
def test_carrier_after_event(source, event, dest):
    assert after(Carrier[source], CarrierEvent[event]) is Carrier[source if dest == "." else dest]


def test_matrix_names_every_cell_and_row():
    assert {(Carrier[source], CarrierEvent[event]) for source, event, _ in CELLS} == set(product(Carrier, CarrierEvent))
    assert len(ROWS) == len({(row.source, row.event) for row in ROWS}) == sum(dest != "." for *_, dest in CELLS)
    assert all(row.reason for row in ROWS)


def test_every_carrier_is_reached_from_the_first():
    reached = {Carrier.WEBSOCKET}
    for _ in Carrier:
        reached |= {row.dest for row in ROWS if row.source in reached}
    assert reached == set(Carrier)


def test_only_long_polling_carriers_try_no_websocket():
    assert [one.name for one in Carrier if not one.tries_websocket] == ["LONG_POLLING", "NO_WEBSOCKET"]
