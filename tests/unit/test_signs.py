"""Signs of life: counted by one's own clock, for as long as they stay the same."""

from __future__ import annotations

from controller.signs import Signs


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_sign_that_stays_the_same_grows_old_and_a_new_one_is_young() -> None:
    signs, clock = made_signs()
    assert signs.take("one", {"a": 7}) == {"a": 0.0}
    clock.now += 30
    assert signs.take("one", {"a": 7}) == {"a": 30.0}
    assert signs.oldest("one", "a") is None, "when the first one was given nobody knows"
    clock.now += 5
    assert signs.take("one", {"a": 3}) == {"a": 0.0}, "a file server's clock may be put back"
    assert signs.oldest("one", "a") == 5.0, "it was given after the one before was last seen"


def test_who_gives_no_signs_is_not_quiet() -> None:
    signs, _ = made_signs()
    assert signs.take("one", {"a": None, "b": 1}) == {"a": None, "b": 0.0}
    assert signs.oldest("one", "a") is None
    assert signs.oldest("two", "b") is None


def test_what_is_not_asked_for_any_more_is_forgotten() -> None:
    signs, clock = made_signs()
    signs.take("one", {"a": 1, "b": 1})
    clock.now += 5
    signs.take("one", {"b": 1})
    assert signs.take("one", {"a": 1, "b": 1}) == {"a": 0.0, "b": 5.0}


def made_signs() -> tuple[Signs, Clock]:
    clock = Clock()
    return Signs(clock), clock
