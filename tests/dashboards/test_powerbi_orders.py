"""No dashboard is left stale and none refreshed twice for the same tables, in whatever order things happen.

``python -m tests.dashboards.powerbi_orders 5000`` plays more of them.
"""

from __future__ import annotations

import sys

from tests.dashboards.powerbi_orders import Figures, Order, OrderOverHttp, play_orders
from tests.dashboards.powerbi_server import PowerBIServer, powerbi_server

SEED = 20_261_121
ORDERS = 60
ORDERS_OVER_HTTP = 6


def test_d1_d2_d3_d4_in_random_orders_nothing_is_stale_and_nothing_doubled() -> None:
    figures = play_orders(
        range(SEED, SEED + ORDERS), make=lambda seed, figures: Order(seed, figures, service=PowerBIServer())
    )
    sys.stdout.write(f"seeds from {SEED}: {figures}\n")
    assert flawless(figures)


def test_nor_over_real_http() -> None:
    figures = Figures()
    for seed in range(SEED, SEED + ORDERS_OVER_HTTP):
        with powerbi_server() as service:
            OrderOverHttp(seed, figures, service=service).play()
    sys.stdout.write(f"over HTTP, seeds from {SEED}: {figures}\n")
    assert flawless(figures)


def test_the_oracle_sees_a_refresh_too_many_and_a_stale_dashboard() -> None:
    figures = Figures()
    order = Order(SEED, figures, service=PowerBIServer())
    order.faults_left, order.others, order.commits = 0, [], [1.0]
    order.play()
    order.memory = {}
    order.shown_as_of = None
    order.play()
    assert figures.doubled
    order.service.entries.clear()
    order.play()
    assert figures.stale


def flawless(figures: Figures) -> bool:
    return figures.happened["successes"] > 0 and not (
        figures.doubled or figures.stale or figures.false_successes or figures.endless
    )
