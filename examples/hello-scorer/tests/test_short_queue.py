from hello_scorer import short_queue

from epp.testing import check_scorer, endpoints, request


def test_it_keeps_the_contract() -> None:
    check_scorer(short_queue)
    check_scorer(short_queue, half_at=8.0)


def test_the_score_halves_with_each_half_at_waiting_requests() -> None:
    assert list(short_queue(request(), endpoints(waiting=[0, 4, 8]))) == [1.0, 0.5, 0.25]


def test_half_at_is_a_setting() -> None:
    assert list(short_queue(request(), endpoints(waiting=[8]), half_at=8.0)) == [0.5]
