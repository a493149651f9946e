"""Loops over the bytes of a text column; it is imported where one is called, for numba takes a second to import.

`data` and `offsets` are those of a FlatText: a newline stands before every row and after the last one.
"""

from __future__ import annotations

import numpy as np

from distill_data.compiled import compiled

_NEWLINE, _SPACE, _TAB = 10, 32, 9
_CJK_LEAD = 0xE3  # lead bytes from here on begin characters from U+3000 on: mostly Han, kana, Hangul
_FIRST_BYTES, _LAST_BYTES = 64, 8  # of a long word
_MIX = np.uint64(0x9E3779B97F4A7C15)  # 2^64 by the golden ratio, odd (Fibonacci hashing, Knuth)
_FOLD, _NOTHING, _ONE, _EVERY = np.uint64(32), np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_DEEPEST = 64  # bytes of indentation that are looked through


@compiled
def paragraph_lengths(data, offsets):
    """Characters of every row's longest paragraph: int64 [R]."""
    found = np.zeros(len(offsets) - 1, np.int64)
    for row in range(len(found)):
        longest = before = count = 0  # `before`: characters of this paragraph up to the last newline
        newline = offsets[row] - 1
        for place in range(offsets[row], offsets[row + 1]):
            if data[place] != _NEWLINE:
                count += (data[place] & 0xC0) != 0x80
                continue
            gap = place - newline
            if gap == 1 or (gap == 2 and data[newline + 1] <= _SPACE):
                longest = max(longest, before)
                before = count = 0
            else:
                before = count
                count += 1
            newline = place
        found[row] = max(longest, before)
    return found


@compiled
def repeated_runs(data, offsets, size):
    """How many runs of `size` words every row has, and how many of them stood in it before: int64 [R] each."""
    runs, again = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    leaving = _ONE  # the weight of the word that leaves a run
    for _ in range(size):
        leaving *= _MIX
    words = np.empty(np.max(np.diff(offsets)) if len(runs) else 0, np.uint64)
    seen = np.empty(_table_size(len(words)), np.uint64)
    for row in range(len(runs)):
        count = _hash_words(data, offsets[row], offsets[row + 1], words)
        runs[row] = max(count - size + 1, 0)
        if not runs[row]:
            continue
        places = _table_size(runs[row])
        seen[:places] = _NOTHING
        run = _NOTHING
        for word in range(count):
            run = run * _MIX + words[word]
            if word >= size:
                run -= words[word - size] * leaving
            if word >= size - 1:
                again[row] += _is_seen(seen, places, run)
    return runs, again


@compiled
def _table_size(entries):
    """A power of two of which the entries fill at most half."""
    size = 16
    while size < 2 * entries:
        size *= 2
    return size


@compiled
def _is_seen(seen, places, value):
    """Whether a hash is among the first `places` of a table, where it is afterwards."""
    mixed = value * _MIX
    value = max(mixed ^ (mixed >> _FOLD), _ONE)  # 0 is nothing
    place = np.int64(value) & (places - 1)
    while seen[place] != _NOTHING:
        if seen[place] == value:
            return True
        place = (place + 1) & (places - 1)
    seen[place] = value
    return False


@compiled
def _hash_words(data, start, stop, words):
    """Fill in the hash of every word of a row, with the white space behind it, and say how many there are."""
    count, begin, was_blank = 0, -1, True
    for place in range(start, stop):
        byte = data[place]
        if byte >= _CJK_LEAD or (byte > _SPACE and was_blank):
            if begin >= 0:
                words[count] = _hash(data, begin, place)
                count += 1
            begin = place
        was_blank = byte <= _SPACE
    if begin >= 0:
        words[count] = _hash(data, begin, stop)
        count += 1
    return count


@compiled
def _hash(data, start, stop):
    """Of a long word the first 64 bytes, the last 8 and the length tell."""
    length = stop - start
    found = np.uint64(length) * _MIX
    place = start
    while place < min(stop, start + _FIRST_BYTES):
        width = min(stop - place, 8)
        found = (found ^ eight_bytes(data, place) & _EVERY >> np.uint64(8 * (8 - width))) * _MIX
        found ^= found >> _FOLD
        place += 8
    if length > _FIRST_BYTES:
        found = (found ^ eight_bytes(data, stop - _LAST_BYTES)) * _MIX
        found ^= found >> _FOLD
    return found * _MIX


@compiled
def eight_bytes(data, place):
    """The next 8 bytes, the first one the lowest."""
    return (
        np.uint64(data[place])
        | np.uint64(data[place + 1]) << np.uint64(8)
        | np.uint64(data[place + 2]) << np.uint64(16)
        | np.uint64(data[place + 3]) << np.uint64(24)
        | np.uint64(data[place + 4]) << np.uint64(32)
        | np.uint64(data[place + 5]) << np.uint64(40)
        | np.uint64(data[place + 6]) << np.uint64(48)
        | np.uint64(data[place + 7]) << np.uint64(56)
    )


@compiled
def begins_with(data, place, marks):
    """Whether one of the marks (uint64 [n, 2]: up to 8 bytes little-endian, and which of them count) begins here."""
    ahead = _NOTHING
    for byte in range(8):
        ahead |= np.uint64(data[place + byte]) << np.uint64(8 * byte)
    found = False
    for mark in range(len(marks)):
        found |= ahead & marks[mark, 1] == marks[mark, 0]
    return found


@compiled
def rows_with(data, offsets, marks, firsts):
    """Which rows contain one of the marks, the newline before a row included; `firsts` (bool [256]) are first bytes."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(found)):
        for place in range(offsets[row] - 1, offsets[row + 1] - 1):
            if firsts[data[place]] and begins_with(data, place, marks):
                found[row] = True
                break
    return found


@compiled
def code_bytes(data, offsets, marks, opens):
    """Bytes of every row's lines without their indentation, and of those that are code or fenced: int64 [R] each.

    `marks`: those of fences, of lines of code, of lines that are code where they end in one of `opens` (bool [256]),
    and the ends of any line of code.
    """
    whole, code = np.zeros(len(offsets) - 1, np.int64), np.zeros(len(offsets) - 1, np.int64)
    for row in range(len(whole)):
        fenced, start = False, offsets[row]
        while start < offsets[row + 1]:
            stop = start
            while data[stop] != _NEWLINE:
                stop += 1
            begin = start
            while begin < start + _DEEPEST and (data[begin] == _SPACE or data[begin] == _TAB):
                begin += 1
            start = stop + 1
            if begin >= stop:
                continue
            fence = begins_with(data, begin, marks[0])
            whole[row] += stop - begin
            if fenced or fence or _is_code(data, begin, stop, marks, opens):
                code[row] += stop - begin
            fenced ^= fence
    return whole, code


@compiled
def _is_code(data, begin, stop, marks, opens):
    if begins_with(data, begin, marks[1]):
        return True
    if not opens[data[stop - 1]]:
        return False
    if begins_with(data, begin, marks[2]):
        return True
    ends = marks[3]
    for mark in range(len(ends)):
        width = 0
        while width < 8 and ends[mark, 1] >> np.uint64(8 * width) & _ONE:
            width += 1
        if stop - width >= begin and begins_with(data, stop - width, ends[mark : mark + 1]):
            return True
    return False


@compiled
def rows_beyond_latin(data, offsets, first_other, signs, three_bytes):
    """Which rows have more than Latin, signs and single letters of other scripts, by lead bytes of UTF-8: bool [R]."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(found)):
        for place in range(offsets[row], offsets[row + 1]):
            byte = data[place]
            if byte >= first_other and byte != signs and (byte >= three_bytes or data[place + 2] >= first_other):
                found[row] = True
                break
    return found


@compiled
def script_words(data, offsets, script_of, kinds, alone):
    """How many words every row has of each script: int64 [R, kinds].

    `script_of` (uint8 [0x110000]) numbers the scripts from 1; of the script `alone` every character is a word.
    """
    found = np.zeros((len(offsets) - 1, kinds), np.int64)
    for row in range(len(found)):
        before = length = 0
        place = offsets[row]
        while place < offsets[row + 1]:
            code, place = code_point(data, place)
            script = script_of[code]
            length = length + 1 if script == before else 1
            before = script
            if script == alone or (script and length == 2):
                found[row, script] += 1
    return found


@compiled
def code_point(data, place):
    """The character that begins at a byte of UTF-8, and where the next one begins."""
    lead = np.int64(data[place])
    if lead < 0x80:
        return lead, place + 1
    if lead < 0xE0:
        return (lead & 0x1F) << 6 | np.int64(data[place + 1] & 0x3F), place + 2
    if lead < 0xF0:
        high = (lead & 0x0F) << 12 | np.int64(data[place + 1] & 0x3F) << 6
        return high | np.int64(data[place + 2] & 0x3F), place + 3
    high = (lead & 0x07) << 18 | np.int64(data[place + 1] & 0x3F) << 12
    return high | np.int64(data[place + 2] & 0x3F) << 6 | np.int64(data[place + 3] & 0x3F), place + 4
