"""Marks in texts: how they are counted. Which are left out is in test_transcripts.py."""

from speechssl.text.marks import Marks


def test_the_names_of_many_different_marks_take_no_more_memory() -> None:
    """As remarks in the brackets of books, of which each is another one; all are counted."""
    marks = Marks()
    for number in range(10_000):
        assert marks.without_noises(f"a (remark {number})") == f"a (remark {number})"
    for _ in range(3):
        marks.without_noises("[late] b (remark 7)")

    assert len(marks.kept) == 10_000
    (line,) = marks.lines("texts")
    assert line.startswith("10006 other marks in texts stay, as words: '(remark 7)' 4, ")
