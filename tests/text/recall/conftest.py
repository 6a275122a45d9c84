from __future__ import annotations

import pytest

from tercet.text.recall.memory import Turn


@pytest.fixture
def chat() -> list[Turn]:
    """Two sessions of two people."""
    return [
        (0, "Ada", "Hello Ben, how was your week?"),
        (0, "Ben", "Busy! I painted the kitchen last Sunday."),
        (0, "Ada", "Which colour did you pick?"),
        (0, "Ben", "A warm yellow, like the walls at my grandmother's house."),
        (1, "Ada", "I adopted a cat from the shelter yesterday."),
        (1, "Ben", "Wonderful, what is the cat called?"),
        (1, "Ada", "Her name is Miso. She sleeps on the piano."),
        (1, "Ben", "My dog would be jealous."),
    ]
