"""Loops over the tokens of texts; imported where one is called, for numba takes a second to import.

They find the tokens that `normalise.tokens` finds, and hash each without making a string of it.
"""

from __future__ import annotations

import numpy as np

from distill_data.compiled import compiled
from distill_data.filters.code_points import BLANK, BRACKET, DOUBTFUL, KIND_BITS, MARKUP, NO_TOKEN, SIGN, WORD
from distill_data.filters.text_loops import code_point, eight_bytes

_KIND = 2**KIND_BITS - 1
_END, _SPACE = 10 << KIND_BITS | BLANK, 32 << KIND_BITS | BLANK
_ASTERISK, _ZERO, _NINE, _A, _Z = 42, 48, 57, 97, 122
_LONGEST = 16  # bytes of a token that is hashed here
_AHEAD = 4
_ONE, _BYTE, _LAST = np.uint64(1), np.uint64(8), np.uint64(56)
# XXH3 of at most 16 bytes (github.com/Cyan4973/xxHash, doc/xxhash_spec.md): words of its secret, and its primes
_FLIP_3, _FLIP_8 = np.uint64(0x87275A9B), np.uint64(0xC73AB174C5ECD5A2)
_FLIP_FIRST, _FLIP_LAST = np.uint64(0x6782737BEA4239B9), np.uint64(0xAF56BC3B0996523A)
_PRIME_2, _PRIME_3 = np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9)
_PRIME_MIX, _PRIME_LAST = np.uint64(0x9FB21C651E98DF25), np.uint64(0x165667919E3779F9)
_HALF, _LOW_HALF = np.uint64(32), np.uint64(0xFFFFFFFF)


@compiled
def rows_beyond(data, offsets, stable):
    """Which rows have a code point that is not stable (bool [0x110000]): bool [R]."""
    found = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(found)):
        place = offsets[row]
        while place < offsets[row + 1] and not found[row]:
            if data[place] < 0x80:
                place += 1
                continue
            code, place = code_point(data, place)
            found[row] = not stable[code]
    return found


@compiled
def unstable_runs(data, offsets, stable):
    """Where runs of code points that are not stable begin, with the code point before them, and end: int64 [n] each."""
    starts, ends = np.empty(len(data), np.int64), np.empty(len(data), np.int64)
    count = 0
    for row in range(len(offsets) - 1):
        place = before = np.int64(offsets[row])
        in_run = False
        while place < offsets[row + 1]:
            code, after = code_point(data, place)
            if not stable[code]:
                if not in_run:
                    starts[count] = before
                    count += 1
                ends[count - 1] = after
            in_run = not stable[code]
            before, place = place, after
    return starts[:count].copy(), ends[:count].copy()


@compiled
def copied_runs(data, starts, ends):
    """What stands between these places, as uint8, and where each begins and ends therein: int32 [n + 1]."""
    offsets = np.zeros(len(starts) + 1, np.int32)
    for run in range(len(starts)):
        offsets[run + 1] = offsets[run] + ends[run] - starts[run]
    copied = np.empty(offsets[-1], np.uint8)
    for run in range(len(starts)):
        copied[offsets[run] : offsets[run + 1]] = data[starts[run] : ends[run]]
    return copied, offsets


@compiled
def spliced(data, offsets, starts, ends, written, bounds):
    """Rows with what is `written` between its bounds in place of their runs: uint8, and int32 [R + 1]."""
    first = np.int64(offsets[0])
    room = offsets[-1] - first + bounds[-1] - bounds[0]
    made, made_offsets = np.empty(room, np.uint8), np.zeros(len(offsets), np.int32)
    run = count = 0
    place = first
    for row in range(len(offsets) - 1):
        while run < len(starts) and starts[run] < offsets[row + 1]:
            for byte in range(place, starts[run]):
                made[count] = data[byte]
                count += 1
            for byte in range(bounds[run], bounds[run + 1]):
                made[count] = written[byte]
                count += 1
            place = ends[run]
            run += 1
        for byte in range(place, offsets[row + 1]):
            made[count] = data[byte]
            count += 1
        place = np.int64(offsets[row + 1])
        made_offsets[row + 1] = count
    return made[:count].copy(), made_offsets


@compiled
def hash_tokens(data, offsets, meanings):
    """The hashes of all tokens of rows of UTF-8.

    Args:
        data: uint8 [N].
        offsets: where each row begins and ends: integers [R + 1].
        meanings: what each code point is written as, and its kind in the last three bits: int32 [0x110000].

    Returns:
        starts: where each row's tokens begin and end: int64 [R + 1].
        hashes: uint64 [starts[R]]; those of tokens that are longer than 16 bytes are not made.
        longer: number of each of these tokens: int64 [L].
        ends: where each of them ends in `spelled`: int64 [L]; it begins where the one before ends.
        spelled: uint8.
    """
    room = 2 * (offsets[-1] - offsets[0])  # a lower letter can be longer
    starts = np.zeros(len(offsets), np.int64)
    hashes, spelled = np.empty(room, np.uint64), np.empty(room + _LONGEST, np.uint8)
    longer, ends = np.empty(room // _LONGEST, np.int64), np.empty(room // _LONGEST, np.int64)
    codes = np.empty(np.max(np.diff(offsets)) + _AHEAD + 3 if len(offsets) > 1 else 0, np.int64)
    count = long_ones = kept = 0
    for row in range(len(offsets) - 1):
        length = _read(data, offsets[row], offsets[row + 1], meanings, codes)
        place = 1
        while place < length:
            kind = _kind(codes, place)
            if kind == BLANK:
                place += 1
                continue
            size = 0
            while True:
                code = codes[place] >> KIND_BITS
                if code < 0x80:
                    spelled[kept + size] = code
                    size += 1
                else:
                    code, width = _encoded(code)
                    for byte in range(width):
                        spelled[kept + size + byte] = code >> 8 * byte & 0xFF
                    size += width
                place += 1
                if kind != WORD or codes[place] & _KIND != WORD:  # a line's end is blank
                    break
            if size <= _LONGEST:
                first = eight_bytes(spelled, kept)
                if size < 8:
                    first &= (_ONE << np.uint64(8 * size)) - _ONE
                last = eight_bytes(spelled, kept + size - 8) if size > 8 else first << np.uint64(8 * (8 - size))
                hashes[count] = xxh3(first, last, size)
            else:
                kept += size
                longer[long_ones], ends[long_ones] = count, kept
                long_ones += 1
            count += 1
        starts[row + 1] = count
    return starts, hashes[:count].copy(), longer[:long_ones].copy(), ends[:long_ones].copy(), spelled[:kept].copy()


@compiled
def _read(data, start, stop, meanings, codes):
    """What a row's code points mean, without punctuation, between two line's ends; the place of the latter."""
    codes[0] = _END
    length, in_run, place = 1, False, start
    while place < stop:
        code = np.int64(data[place])
        if code < 0x80:
            place += 1
        else:
            code, place = code_point(data, place)
        meaning = np.int64(meanings[code])
        kind = meaning & _KIND
        if kind in (NO_TOKEN, MARKUP):
            if not (in_run and kind == NO_TOKEN):
                codes[length] = _SPACE
                length += 1
            in_run = kind == NO_TOKEN
        else:
            codes[length] = meaning
            length += 1
            in_run = False
    codes[length : length + _AHEAD + 2] = _END
    return length


@compiled
def _kind(codes, place):
    """Whether a code point is part of a word, a token of its own, or between tokens."""
    kind = codes[place] & _KIND
    if kind == DOUBTFUL:
        return SIGN if _has_operand(codes, place) else BLANK
    return BLANK if kind == BRACKET else kind


@compiled
def _has_operand(codes, place):
    """Whether `-` or `*` is a sign: see `normalise`."""
    before, following = codes[place - 1], codes[place + 1]
    if (following == _SPACE and before != _SPACE) or before >> KIND_BITS == _ASTERISK:
        return False
    at = place + 1
    while at < place + 1 + _AHEAD and (codes[at] == _SPACE or codes[at] & _KIND == BRACKET):
        at += 1
    if at == place + 1 + _AHEAD:
        return False
    operand, after = codes[at] >> KIND_BITS, codes[at + 1] >> KIND_BITS
    if _ZERO <= operand <= _NINE:
        return True
    is_letter = _A <= operand <= _Z
    return is_letter and after < 128 and not (_A <= after <= _Z) and not (_ZERO <= after <= _NINE)


@compiled
def _encoded(code):
    """A code point as UTF-8, its first byte the lowest, and how many bytes it has."""
    if code < 0x800:
        return 0xC0 | code >> 6 | (0x80 | code & 0x3F) << 8, 2
    if code < 0x10000:
        return 0xE0 | code >> 12 | (0x80 | code >> 6 & 0x3F) << 8 | (0x80 | code & 0x3F) << 16, 3
    high = 0xF0 | code >> 18 | (0x80 | code >> 12 & 0x3F) << 8
    return high | (0x80 | code >> 6 & 0x3F) << 16 | (0x80 | code & 0x3F) << 24, 4


@compiled
def xxh3(first, last, length):
    """XXH3 with 64 bits and no seed, of 1 to 16 bytes: the first 8 from the lowest on, the last 8 up to the highest."""
    if length <= 3:
        middle = first >> np.uint64(8 * (length // 2)) & np.uint64(0xFF)
        mixed = last >> _LAST | (first & np.uint64(0xFF)) << np.uint64(16) | middle << np.uint64(24)
        mixed = (mixed | np.uint64(length) << _BYTE) ^ _FLIP_3
        mixed = (mixed ^ mixed >> np.uint64(33)) * _PRIME_2
        mixed = (mixed ^ mixed >> np.uint64(29)) * _PRIME_3
        return mixed ^ mixed >> _HALF
    if length <= 8:
        mixed = ((last >> _HALF) + (first << _HALF)) ^ _FLIP_8
        mixed ^= _rotated(mixed, np.uint64(49)) ^ _rotated(mixed, np.uint64(24))
        mixed *= _PRIME_MIX
        mixed = (mixed ^ ((mixed >> np.uint64(35)) + np.uint64(length))) * _PRIME_MIX
        return mixed ^ mixed >> np.uint64(28)
    low, high = first ^ _FLIP_FIRST, last ^ _FLIP_LAST
    turned = np.uint64(0)
    for byte in range(8):
        turned = turned << _BYTE | (low >> np.uint64(8 * byte)) & np.uint64(0xFF)
    mixed = np.uint64(length) + turned + high + _folded_product(low, high)
    mixed = (mixed ^ mixed >> np.uint64(37)) * _PRIME_LAST
    return mixed ^ mixed >> _HALF


@compiled
def _rotated(value, bits):
    return value << bits | value >> (np.uint64(64) - bits)


@compiled
def _folded_product(one, two):
    """The halves of a product of 128 bits, one laid over the other."""
    low = (one & _LOW_HALF) * (two & _LOW_HALF)
    cross = (one >> _HALF) * (two & _LOW_HALF)
    other = (one & _LOW_HALF) * (two >> _HALF)
    carry = (low >> _HALF) + (cross & _LOW_HALF) + other
    high = (one >> _HALF) * (two >> _HALF) + (cross >> _HALF) + (carry >> _HALF)
    return high ^ (carry << _HALF | low & _LOW_HALF)


@compiled
def hash_runs(starts, hashes, size, factor):
    """Hashes of every run of `size` tokens, of a shorter text as a whole, and of all tokens of every text.

    A run is a polynomial of its tokens modulo 2^64: the first times 1, the next times the factor, and so on.

    Returns:
        offsets: where each text's runs begin and end: int64 [R + 1].
        runs: uint64 [offsets[R]].
        whole: uint64 [R]; 0 without tokens.
    """
    rows = len(starts) - 1
    offsets, whole = np.zeros(rows + 1, np.int64), np.zeros(rows, np.uint64)
    for row in range(rows):
        length = starts[row + 1] - starts[row]
        offsets[row + 1] = offsets[row] + (length - size + 1 if length >= size else min(length, 1))
    runs = np.empty(offsets[rows], np.uint64)
    leaving = _ONE
    for _ in range(size):
        leaving *= factor
    for row in range(rows):
        run = np.uint64(0)
        for token in range(starts[row + 1] - 1, starts[row] - 1, -1):
            whole[row] = whole[row] * factor + hashes[token]
            run = run * factor + hashes[token]
            if token + size < starts[row + 1]:
                run -= hashes[token + size] * leaving
            if token + size <= starts[row + 1]:
                runs[offsets[row] + token - starts[row]] = run
        if starts[row] < starts[row + 1] < starts[row] + size:
            runs[offsets[row]] = whole[row]
    return offsets, runs, whole


@compiled
def places_in(hashes, taken, shift):
    """Of which hashes the first bits, what `shift` leaves of them, are taken (bool [2^bits]): int64 [n]."""
    places = np.empty(len(hashes), np.int64)
    count = 0
    for place in range(len(hashes)):
        places[count] = place
        count += taken[hashes[place] >> shift]
    return places[:count].copy()


@compiled
def first_alike_in_groups(offsets, runs, groups, similarity):
    """For every text the first kept one of its group whose set of runs is as similar: int64 [R], itself where none is.

    `groups` says where each group begins, and where the last one ends. A text that is like an earlier one is not kept,
    and none is dropped for it.
    """
    first = np.arange(len(offsets) - 1)
    counts = np.zeros(len(first), np.int64)  # of the different runs of each text
    for group in range(len(groups) - 1):
        start, stop = groups[group], groups[group + 1]
        many = offsets[stop] - offsets[start]
        places = 16
        while places < 2 * many:
            places *= 2
        entries, entered, newest = np.empty(places, np.uint64), np.full(places, -1), np.full(places, -1)
        rows, older = np.empty(many, np.int64), np.empty(many, np.int64)  # chains of the kept texts that have a run
        mine, shared, chained = np.empty(many, np.int64), np.zeros(stop - start, np.int64), 0
        for row in range(start, stop):
            shared[:] = 0
            count = 0
            for run in range(offsets[row], offsets[row + 1]):
                place = _entry(entries, entered, runs[run])
                if entered[place] == row:
                    continue
                entered[place] = row
                mine[count] = place
                count += 1
                link = newest[place]
                while link >= 0:
                    shared[rows[link] - start] += 1
                    link = older[link]
            counts[row] = count
            for other in range(start, row):
                both = shared[other - start]
                if both and both / (count + counts[other] - both) >= similarity:
                    first[row] = other
                    break
            if first[row] == row:
                for nth in range(count):
                    rows[chained], older[chained] = row, newest[mine[nth]]
                    newest[mine[nth]] = chained
                    chained += 1
    return first


@compiled
def _entry(entries, entered, run):
    """Where a run is in a table, or is to go."""
    mask = len(entries) - 1
    place = np.int64((run ^ run >> np.uint64(32)) & np.uint64(mask))
    while entered[place] >= 0 and entries[place] != run:
        place = (place + 1) & mask
    entries[place] = run
    return place
