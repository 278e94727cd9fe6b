"""How much work a regular expression makes, told from its text alone."""

from __future__ import annotations

import re

MOST_STATES = 5_000
"""RE2 takes time in proportion to the length of a value times this number at worst, and never more."""

_COUNTED = re.compile(r"\{(\d{1,6})?(,(\d{1,6})?)?\}")


def states(pattern: str) -> int:
    """Length of a pattern with its counted repetitions written out: what ``a{3}`` repeats counts three times."""
    open_groups: list[int] = []
    total = last = at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "(":
            open_groups.append(total + last)
            total = last = 0
        elif character == ")" and open_groups:
            total, last = open_groups.pop(), total + last
        elif character == "{" and (counted := _COUNTED.match(pattern, at)):
            last *= max(1, *(int(number) for number in (counted[1], counted[3]) if number), 1)
            at = counted.end()
            continue
        else:
            total += last
            last = 1
            at = _end_of_atom(pattern, at)
            continue
        at += 1
    return total + last + sum(open_groups)


def _end_of_atom(pattern: str, at: int) -> int:
    """Where the character, escape or class ends that begins here."""
    if pattern[at] == "\\":
        return at + 2
    if pattern[at] != "[":
        return at + 1
    end = at + 1
    if pattern[end : end + 1] == "^":
        end += 1
    # A bracket right at the beginning of a class is one of its characters.
    if pattern[end : end + 1] == "]":
        end += 1
    while end < len(pattern) and pattern[end] != "]":
        end += 2 if pattern[end] == "\\" else 1
    return end + 1
