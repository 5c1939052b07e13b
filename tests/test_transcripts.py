"""The harness of the documents' transcripts can fail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.transcripts import matches, run

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = """
```python
# hello.py
print("one")
print("two   columns")
```

```console
$ python3 hello.py
one
two columns
$ echo a; \\
  echo b
...
b
```
"""


def test_a_true_document_has_no_difference(tmp_path: Path) -> None:
    assert run(DOCUMENT, tmp_path, os.environ) == []


def test_a_false_document_names_the_command_and_both_texts(tmp_path: Path) -> None:
    (difference,) = run(DOCUMENT.replace("\none\n", "\nfirst\n"), tmp_path, os.environ)
    assert "$ python3 hello.py" in difference
    assert "first" in difference
    assert "one\n" in difference


@pytest.mark.parametrize(
    ("printed", "expected", "equal"),
    [
        (["a"], ["a"], True),
        (["a"], ["b"], False),
        (["a", "b"], ["a"], False),
        ([], ["..."], True),
        (["x", "y", "z"], ["...", "z"], True),
        (["run 1234 done"], ["run ... done"], True),
        (["run 1234 failed"], ["run ... done"], False),
        (["a.c"], ["a.c"], True),
        (["abc"], ["a.c"], False),
    ],
)
def test_ellipses(printed: list[str], expected: list[str], equal: bool) -> None:
    assert matches(printed, expected) is equal
