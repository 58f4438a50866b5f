"""What sacjax says when something cannot work: the wording of its messages, each held once.

All other tests hold the kind and the `field` of an error. A case is a function that must fail; its
decorator has the kind, the field and the whole message. `{path}` stands for the test's folder.
"""

import pickle

import pytest
from checks import TINY

from sacjax import InputError, RunError, run

CASES = []


def says(field, message, kind=InputError):
    """Register a case: `do(path)` raises `kind` about `field`, and says `message`."""

    def register(do):
        CASES.append(pytest.param(do, kind, field, message, id=do.__name__))
        return do

    return register


# --- settings ------------------------------------------------------------------------------------


@says("seeds", "seeds (0) must be different whole numbers from 0 to 2**32 - 1: use seeds=8")
def no_seeds(path):
    run(TINY, seeds=0)


@pytest.mark.parametrize(("do", "kind", "field", "message"), CASES)
def test_message(do, kind, field, message, tmp_path):
    with pytest.raises(kind) as caught:
        do(tmp_path)
    assert str(caught.value).replace(str(tmp_path), "{path}") == message
    assert caught.value.field == field


@pytest.mark.parametrize("kind", [InputError, RunError])
def test_errors_keep_their_field_when_they_are_pickled(kind):
    error = pickle.loads(pickle.dumps(kind("message", "tau")))
    assert (str(error), error.field) == ("message", "tau")
