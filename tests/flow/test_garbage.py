"""What a run imports is set aside while it lasts; afterwards the caller's objects are as they were."""

import gc

import pytest

from qpipe.flow.garbage import importing, looked_through_again


@pytest.fixture(autouse=True)
def nothing_set_aside():
    gc.unfreeze()
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_searched_while_importing_and_nothing_of_that_later():
    with looked_through_again():
        with importing():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count()
    assert not gc.get_freeze_count()


def test_a_program_that_does_without_a_collector_stays_without_one():
    gc.disable()
    with importing():
        pass
    assert not gc.isenabled()


def test_what_the_program_set_aside_itself_stays_so_and_nothing_joins_it():
    gc.freeze()
    before = gc.get_freeze_count()
    with looked_through_again(), importing():
        more = [[number] for number in range(1000)]
    assert 0 < gc.get_freeze_count() < before + len(more)
