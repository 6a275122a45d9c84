"""Check digits: what tells a number of a kind from any other. Each takes the bare digits or letters."""

from __future__ import annotations

from collections.abc import Sequence


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B: every second digit from the right doubled, digits summed, divisible by ten."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def card(digits: str) -> bool:
    """A payment card: the range and length of a known network, and Luhn."""
    return any(
        len(digits) in lengths and any(low <= digits[: len(low)] <= high for low, high in ranges)
        for lengths, ranges in NETWORKS
    ) and luhn(digits)


NETWORKS: Sequence[tuple[Sequence[int], Sequence[tuple[str, str]]]] = (
    ((16, 19), [("4", "4")]),
    ((16,), [("51", "55"), ("2221", "2720"), ("3528", "3589")]),
    ((15,), [("34", "34"), ("37", "37")]),
    ((14,), [("300", "305"), ("36", "36"), ("38", "39")]),
    ((16, 17, 18, 19), [("6011", "6011"), ("62", "62"), ("644", "659")]),
)
"""Lengths, and the first digits from-to: Visa; Mastercard and JCB; American Express; Diners; Discover and UnionPay."""


def iban(text: str) -> bool:
    """ISO 13616: the country's length, and the number with its head moved to the end is 1 modulo 97."""
    if len(text) != IBAN_LENGTHS.get(text[:2]):
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29,
    "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29,
    "ES": 24, "FI": 18, "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28,
    "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28,
    "LC": 32, "LI": 21, "LT": 20, "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20,
    "MR": 27, "MT": 31, "MU": 30, "NI": 28, "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25,
    "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24, "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27,
    "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Country -> characters, from SWIFT's registry."""


def us_ssn(digits: str) -> bool:
    """No check digit; areas 000, 666 and 900 to 999, group 00 and serial 0000 are never given."""
    return digits[:3] not in {"000", "666"} and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def gb_nino(text: str) -> bool:
    """No check digit; some prefixes are never given."""
    return text[:2] not in {"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"}


def de_idnr(digits: str) -> bool:
    """ISO 7064 MOD 11,10; among the first ten digits one comes two or three times."""
    counts = sorted((digits[:10].count(one) for one in set(digits[:10])), reverse=True)
    if digits[0] == "0" or counts[0] not in {2, 3} or counts[1:2] != [1]:
        return False
    product = 10
    for digit in digits[:10]:
        product = ((int(digit) + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == int(digits[10])


def fr_nir(text: str) -> bool:
    """97 less the number modulo 97; Corsica's 2A and 2B count as 19 and 18."""
    bare = text.upper().replace("2A", "19").replace("2B", "18")
    month = int(bare[3:5])
    return (1 <= month <= 12 or 20 <= month <= 42 or month >= 50) and 97 - int(bare[:13]) % 97 == int(bare[13:])


def es_dni(text: str) -> bool:
    """The letter that the number modulo 23 stands for; a foreigner's X, Y, Z counts as 0, 1, 2."""
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


_ODD_PLACES = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16,
         10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip


def it_codice(text: str) -> bool:
    """Values of odd and even places (decree of 23 December 1976), summed modulo 26, are the last letter."""
    total = sum(
        _ODD_PLACES[c] if place % 2 == 0 else int(c) if c.isdigit() else ord(c) - ord("A")
        for place, c in enumerate(text[:15])
    )
    return chr(ord("A") + total % 26) == text[15]


def br_cpf(digits: str) -> bool:
    """Two digits, each eleven less a weighted sum modulo 11 (ten and more: 0)."""
    if len(set(digits)) == 1:
        return False
    return all(
        sum(int(c) * (size + 1 - place) for place, c in enumerate(digits[:size])) * 10 % 11 % 10 == int(digits[size])
        for size in (9, 10)
    )


_D5 = ("0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
       "5987604321", "6598710432", "7659821043", "8765932104", "9876543210")  # fmt: skip
_P8 = ("0123456789", "1576283094", "5803796142", "8916043527", "9453126870", "4286573901", "2793806415", "7046913258")


def in_aadhaar(digits: str) -> bool:
    """Verhoeff's check (1969): the product in the dihedral group D5 of the permuted digits is the identity."""
    state = 0
    for place, digit in enumerate(reversed(digits)):
        state = int(_D5[state][int(_P8[place % 8][int(digit)])])
    return state == 0 and digits[0] not in "01"


def jp_number(digits: str) -> bool:
    """Eleven less a sum with weights 2 to 7 from the right, modulo 11 (ten and more: 0)."""
    total = sum(int(c) * (place + 2 if place < 6 else place - 4) for place, c in enumerate(reversed(digits[:11])))
    rest = total % 11
    return (0 if rest <= 1 else 11 - rest) == int(digits[11])


def pl_pesel(digits: str) -> bool:
    """Weights 1, 3, 7, 9; the first six are a date, its century added to the month."""
    month, day = int(digits[2:4]) % 20, int(digits[4:6])
    total = sum(int(c) * (1, 3, 7, 9)[place % 4] for place, c in enumerate(digits[:10]))
    return 1 <= month <= 12 and 1 <= day <= 31 and -total % 10 == int(digits[10])
