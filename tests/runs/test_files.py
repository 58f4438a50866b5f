"""Files that are written whole or not at all."""

import errno

import pytest

from sacjax.runs.files import remedy, replacing, write_text


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, failure):
    path = tmp_path / "config.json"
    write_text(path, "before")

    def interrupted():
        with replacing(path) as part:
            part.write_text("half")
            raise failure

    with pytest.raises(failure):
        interrupted()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    write_text(path, "after")
    assert path.read_text() == "after"


def test_the_part_keeps_the_files_ending(tmp_path):
    """Some writers go by it."""
    with replacing(tmp_path / "pendulum.gif") as part:
        part.write_bytes(b"GIF")
        assert part.suffix == ".gif"
    assert [path.name for path in tmp_path.iterdir()] == ["pendulum.gif"]


def raised(outer, inner):
    try:
        try:
            raise inner
        except Exception as error:
            raise outer from error
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "in any language"), "make room"),
        (ValueError("RESOURCE_EXHAUSTED: ... [OS error 28: No space left on device]"), "make room"),
        (raised(ValueError("orbax"), OSError(errno.EDQUOT, "")), "make room"),
        (OSError(errno.EACCES, "Permission denied"), "mend that"),
        (ValueError("Cannot save arrays with zero size"), "mend that"),
        (None, "mend that"),
    ],
)
def test_room_is_asked_for_where_that_helps(error, what):
    assert remedy(error) == what
