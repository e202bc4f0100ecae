"""Lists of attributes of OTLP/JSON, written in protobuf.

Most attributes of a service repeat (method GET, status 200, the same host), so what was written is
remembered by the JSON text it came from: single attributes, and runs of attributes that were all
known. Some keys have a new value each time (a path, a query). They are noticed, and lists are cut
there, so that the runs between them repeat.
"""

from __future__ import annotations

import re

import msgspec

from gateway.otlp.fields import delimited, varint
from gateway.otlp.json_scalars import Problem, Repairs
from gateway.otlp.json_values import read_all, read_one
from gateway.otlp.memo import Memo

NO_ATTRIBUTES = msgspec.Raw(b"[]")

_LIST = ord("[")
_KEY = b'"key":"'
_PLAIN_KEY = re.compile(rb'"key":"[!#-[\]-~]{1,64}')
_STRING = b'","value":{"stringValue":"'
_STRING_END = b'"}}'
_SEAM = b"}},{"
"""Between attributes as nearly all senders write them: without blanks, the value behind the key."""

_BETWEEN = frozenset((b"[", b",", b"]"))
"""What stands in a list beside attributes."""

_LONGEST_ATTRIBUTE = 128
_LONGEST_RUN = 2048
_MOST_KEYS = 256
_MOST_SEEN = 2048
_MOST_CUTS = 4
_MISSES = 256
"""New values after which lists are cut at a key."""

_REVIEW = 512
"""Runs that were not known after which it is looked at whether runs repeat at all."""
_LISTS_APART = 8192
_MOST_HEADS = 32


class Attributes:
    """Writes the attributes of one kind of message as fields with its tag."""

    def __init__(self, tag: bytes, *, max_bytes: int) -> None:
        """``max_bytes`` is what is remembered."""
        self._tag = tag
        self._attributes = Memo(max_bytes // 2, longest=_LONGEST_ATTRIBUTE)
        self._runs = Memo(max_bytes // 2, longest=_LONGEST_RUN)
        self._lists = self._missed = 0
        """Lists, and runs in them that were not known, since the last review."""
        self._apart = 0
        """Lists that are still to be read one attribute at a time."""
        self._seen: set[int] = set()
        """Hashes of runs that came once."""
        self._learned = 0
        """Attributes that were not known."""
        self._keys: dict[bytes, _Key | None] = {}
        """By the text in front of a string; None where it came once, or is not plain."""
        self._cuts: list[_Key] = []
        """In the order in which they stood in some list."""
        self._cut_last: list[_Key] = []
        """The same, those that were noticed last behind."""
        self._wanted: list[_Key] = []

    def write(self, raw: msgspec.Raw, repairs: Repairs) -> bytes:
        """A JSON list of attributes in protobuf. Raises Problem."""
        listed = bytes(raw)
        if listed == b"[]":
            return b""
        if listed[0] == _LIST:
            try:
                return self._written(listed)
            except (ValueError, Problem):
                pass  # The full reading takes what was cut wrongly, and finds where a problem is.
        return read_all(self._tag, listed, repairs)

    def _written(self, listed: bytes) -> bytes:
        """Raises ValueError or Problem also for a list that only has to be read in full.

        Wherever text is cut that is not simply attribute by attribute, as in a string or within a
        value, some part is left that is no JSON object.
        """
        if self._apart:
            self._apart -= 1
            written_apart, _ = self._read_attributes(listed)
            if self._wanted:
                self._cut_at_wanted(listed)
            return written_apart
        self._lists += 1
        known_run = self._runs.recent.get
        written = []
        rest = listed
        for key in self._cuts:
            run, found, behind = rest.partition(key.start)
            if found:
                if len(run) > 1:  # else a bracket or a comma
                    written.append(known_run(run) or self._read_run(run))
                value, _, rest = behind.partition(_STRING_END)
                written.append(key.field(value) or self._read(key.start[1:] + value + b'"'))
        if rest != b"]":
            written.append(known_run(rest) or self._read_run(rest))
        if self._wanted:
            self._cut_at_wanted(listed)
        return b"".join(written)

    def _read_run(self, run: bytes) -> bytes:
        """Attributes with what stands beside them: the list's brackets, a comma at a cut."""
        known = self._runs.find(run)
        if known is not None:
            return known
        written, are_known = self._read_attributes(run)
        if are_known:
            self._keep_run(run, written)
        self._missed += 1
        if self._missed == _REVIEW:
            self._review()
        return written

    def _read_attributes(self, run: bytes) -> tuple[bytes, bool]:
        """One by one, and whether all of them were known."""
        start = 1 if run[:1] in _BETWEEN else 0
        stop = -1 if run[-1:] in _BETWEEN else len(run)
        if run[start : start + 1] != b"{" or not run.endswith(b"}}", start, stop):
            raise ValueError(run)
        get, learn, learned = self._attributes.recent.get, self._learn, self._learned
        parts = run[start + 1 : stop][:-2].split(_SEAM)
        written = b"".join([get(part) or learn(part) for part in parts])
        return written, self._learned == learned

    def _review(self) -> None:
        """Where most lists had a run that was not known, looking for runs does not pay."""
        if self._lists < 2 * _REVIEW:
            self._cuts, self._cut_last = [], []
            self._apart = _LISTS_APART
        self._lists = self._missed = 0

    def _keep_run(self, run: bytes, written: bytes) -> None:
        """Keep what was seen before: many runs come only once, though all in them is known."""
        mark = hash(run)
        if mark in self._seen:
            self._runs.keep(run, written)
            return
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen.add(mark)

    def _learn(self, part: bytes) -> bytes:
        """A single attribute; ``part`` is its text without the outer brackets."""
        known = self._attributes.find(part)
        if known is not None:
            return known
        self._learned += 1
        written: bytes | None = None
        head, is_string, text = part.partition(_STRING)
        if is_string:
            key = self._keys.get(head)
            if key is None:
                self._notice(head)
            elif text[-1:] == b'"':
                written = key.field(text[:-1])
                if written:
                    key.misses += 1
                    if key.misses == _MISSES:
                        self._wanted.append(key)
        if written is None:
            written = self._read(part)
        self._attributes.keep(part, written)
        return written

    def _notice(self, head: bytes) -> None:
        """A key with a string; of what comes only once no more is kept than the name."""
        if head in self._keys:
            if _PLAIN_KEY.fullmatch(head):
                self._keys[head] = _Key(self._tag, head[len(_KEY) :])
        elif len(head) <= _LONGEST_ATTRIBUTE:
            if len(self._keys) >= _MOST_KEYS:
                self._keys.clear()
            self._keys[head] = None

    def _read(self, part: bytes) -> bytes:
        """Raises ValueError also where it needs repairs, which are to be counted each time."""
        repairs = Repairs()
        written = read_one(b"{" + part + b"}}", repairs)
        if repairs:
            raise ValueError(part)
        return self._tag + written

    def _cut_at_wanted(self, listed: bytes) -> None:
        """Cut lists from now on also at the keys that were noticed, in the order of this list."""
        others = [key for key in self._cut_last if key not in self._wanted]
        self._cut_last = [*others, *self._wanted][-_MOST_CUTS:]
        self._cuts = sorted(self._cut_last, key=lambda key: listed.find(key.start))
        for key in self._wanted:
            key.misses = 0
        self._wanted.clear()
        self._lists = self._missed = self._apart = 0


class _Key:
    """A key whose values are strings."""

    __slots__ = ("_field", "_heads", "_tag", "misses", "start")

    def __init__(self, tag: bytes, key: bytes) -> None:
        self._tag = tag
        self._field = delimited(b"\x0a", key)
        self._heads: dict[int, bytes] = {}
        """What stands in front of a string, by its length."""
        self.start = b"{" + _KEY + key + _STRING
        self.misses = 0
        """Values that were not known."""

    def field(self, value: bytes) -> bytes | None:
        """The attribute with the JSON text of a string, which is valid JSON; None where the text is
        not what it stands for. Raises UnicodeDecodeError.
        """
        if b"\\" in value or b'"' in value:
            return None
        if not value.isascii():
            value.decode()  # what was only passed over may not be UTF-8
        size = len(value)
        return (self._heads.get(size) or self._head(size)) + value

    def _head(self, size: int) -> bytes:
        behind = varint(size)
        behind = b"\x12" + varint(1 + len(behind) + size) + b"\x0a" + behind
        whole = varint(len(self._field) + len(behind) + size)
        head = self._tag + whole + self._field + behind
        if len(self._heads) < _MOST_HEADS:
            self._heads[size] = head
        return head
