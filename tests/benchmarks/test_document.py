"""Tables between the marks of a document."""

from pathlib import Path

import pytest

from benchmarks.document import get, put

BY = "benchmarks/scenes_table"


def test_the_document_keeps_what_is_around_the_marks(tmp_path: Path) -> None:
    document = tmp_path / "results.md"
    document.write_text("# Before\n")
    for text in ("first", "second"):
        put(document, "one", text, BY)
    put(document, "two", "other", BY)
    found = document.read_text()
    assert found.startswith("# Before\n") and "first" not in found
    assert found.count("second") == found.count("other") == 1
    document.write_text(found.replace("<!-- end of one -->", ""))
    with pytest.raises(ValueError, match="only one of the marks"):
        put(document, "one", "third", BY)
    put(tmp_path / "new.md", "one", "first", BY)
    assert (tmp_path / "new.md").read_text().splitlines()[1] == "first"
    assert get(tmp_path / "new.md", "one", BY) == "first" and get(tmp_path / "new.md", "two", BY) is None
