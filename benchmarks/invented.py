"""Facts about people who do not exist, drawn from a seed: what no model has read."""

from __future__ import annotations

import random

FIRST = ("Mara", "Jonas", "Ilse", "Tomas", "Bruna", "Anselm", "Vera", "Quentin", "Odile", "Rasmus", "Petra", "Silvan",
         "Greta", "Matteo", "Ingrid", "Caspar", "Liv", "Edgar", "Noemi", "Falk")  # fmt: skip
LAST = ("Lindqvist", "Okafor", "Brandt", "Vasquez", "Hollis", "Tamura", "Keller", "Novak", "Duarte", "Farrow",
        "Moreau", "Sandoval", "Whitlock", "Petrov", "Engel")  # fmt: skip
RELATIONS = {
    "{} works as a {}.": ("glassblower", "beekeeper", "locksmith", "cartographer", "veterinarian", "plumber",
        "translator", "geologist", "florist", "welder", "librarian", "pharmacist", "tailor", "surveyor", "baker",
        "optician"),
    "{} lives in {}.": ("Bergen", "Porto", "Ghent", "Malaga", "Tartu", "Graz", "Leeds", "Nantes", "Turku", "Verona",
        "Gdansk", "Bilbao", "Utrecht", "Galway", "Split", "Aarhus"),
    "{} was born in {}.": ("Lima", "Quito", "Dakar", "Hanoi", "Perth", "Osaka", "Cusco", "Tunis", "Accra", "Minsk",
        "Haifa", "Bogota", "Kyoto", "Tbilisi", "Nairobi", "Manila"),
    "{} plays the {}.": ("cello", "oboe", "banjo", "harp", "trumpet", "accordion", "flute", "viola", "tuba", "mandolin",
        "clarinet", "bassoon", "drums", "organ", "ukulele", "saxophone"),
    "{} is allergic to {}.": ("peanuts", "shellfish", "strawberries", "pollen", "latex", "soy", "cats", "walnuts",
        "penicillin", "mustard", "sesame", "wool", "kiwi", "dust", "eggs", "gluten"),
    "{} drives a {}.": ("red van", "blue truck", "green jeep", "silver coupe", "white scooter", "yellow taxi",
        "black limousine", "grey pickup", "orange tractor", "purple minibus", "brown wagon", "pink convertible"),
    "{}'s favourite dish is {}.": ("lasagne", "ramen", "goulash", "paella", "pierogi", "ceviche", "moussaka", "risotto",
        "falafel", "gumbo", "borscht", "couscous", "fondue", "tagine", "dumplings", "curry"),
    "{} is learning {}.": ("Finnish", "chess", "pottery", "Korean", "juggling", "fencing", "Welsh", "origami",
        "Swahili", "calligraphy", "archery", "Greek", "weaving", "sailing", "Arabic", "carpentry"),
}  # fmt: skip


def facts(count: int, *, seed: int = 0, each: int = 4) -> list[tuple[str, str, str]]:
    """(subject, sentence, value) of so many facts, `each` about a person; another seed gives other people's."""
    chance = random.Random(seed)  # noqa: S311
    people = [f"{first} {last}" for first in FIRST for last in LAST]
    chance.shuffle(people)
    made = []
    for number in range(count):
        person, place = people[number // each % len(people)], number % each
        sentences = list(RELATIONS)
        sentence = sentences[(place + 2 * (number // each)) % len(sentences)]
        value = chance.choice(RELATIONS[sentence])
        made.append((person, sentence.format(person, value), value))
    return made
