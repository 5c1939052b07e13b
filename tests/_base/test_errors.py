from __future__ import annotations

import pickle

import pytest

from flowkiln._base.errors import ExitCode, FlowkilnError, NoSpace, concerning, leaves


def test_exit_codes_are_frozen() -> None:
    assert {code.name: code.value for code in ExitCode if code.value in {0, 1, 2, 3, 4, 5, 17, 18, 19, 130}} == {
        "OK": 0,
        "USER_CODE": 1,
        "BAD_INPUT": 2,
        "LOCK": 3,
        "UNSOLVABLE": 4,
        "SERVICE": 5,
        "ENVIRONMENT": 17,
        "LEASE": 18,
        "STORE": 19,
        "INTERRUPTED": 130,
    }


def test_an_error_survives_pickling_with_its_facts() -> None:
    error = NoSpace("disk full", step="fit", hint="free some", data={"path": "/x"}, log="/tmp/log", retryable=True)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is NoSpace
    assert again.to_json() == error.to_json()
    assert again.retryable


def test_an_error_says_what_it_concerns_once() -> None:
    with pytest.raises(NoSpace) as caught, concerning("fit", "base x"), concerning("later", "base x:1"):
        raise NoSpace("disk full")
    assert (caught.value.step, caught.value.message) == ("later", "base x:1: disk full")
    assert str(caught.value) == caught.value.message
    with pytest.raises(NoSpace) as caught, concerning(what="environment 'a'", named="'a'"):
        raise NoSpace("no room for 'a'", step="fit")
    assert (caught.value.step, caught.value.message) == ("fit", "no room for 'a'")


def test_leaves_have_codes_titles_and_pages() -> None:
    own = [kind for kind in leaves() if kind.__module__.startswith("flowkiln.")]
    for kind in own:
        assert kind.title, kind
        assert kind.__doc__, kind
        assert issubclass(kind, FlowkilnError)
    codes = [kind.code for kind in own]
    assert codes == sorted(set(codes))
    assert NoSpace.code in codes
