"""General text of our own, against forgetting: some is replayed in training, the rest only measured on.

Questions are those a small model mostly knows. Nothing here is in both halves.
"""

from __future__ import annotations

REPLAY_QUESTIONS = (
    ("What is the capital of France?", "Paris"), ("How many days are there in a week?", "seven"),
    ("Which planet is closest to the Sun?", "Mercury"), ("What is the opposite of hot?", "cold"),
    ("What do bees make?", "honey"), ("What is 2 plus 2?", "4"), ("Which ocean is the largest?", "Pacific"),
    ("What language is spoken in Brazil?", "Portuguese"), ("What gas do plants take in?", "carbon dioxide"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"), ("What colour is grass?", "green"),
    ("What is water made of?", "hydrogen"), ("Name a large African animal with a trunk.", "elephant"),
    ("What do you call a baby cat?", "kitten"), ("Who painted the Mona Lisa?", "Leonardo"),
    ("What instrument has 88 keys?", "piano"), ("Give me one tip for sleeping well.", ""),
    ("Explain in one sentence what a library is.", ""), ("What is a good breakfast?", ""),
    ("Write a short greeting.", ""),
    ("How many hours are in a day?", "24"), ("What is the capital of Canada?", "Ottawa"), ("What is 10 minus 4?", "6"),
    ("Which season comes after winter?", "spring"), ("What do we call the study of stars?", "astronomy"),
    ("Who discovered penicillin?", "Fleming"), ("What is the largest desert?", "Sahara"),
    ("What colour do you get from blue and yellow?", "green"), ("What is the fastest land animal?", "cheetah"),
    ("Which metal is liquid at room temperature?", "mercury"), ("Where do penguins live?", "Antarctica"),
    ("Name a fruit that is yellow.", "banana"), ("What is the capital of Greece?", "Athens"),
    ("In which country are the pyramids of Giza?", "Egypt"), ("What does a thermometer measure?", "temperature"),
    ("Who wrote The Odyssey?", "Homer"), ("How many sides does a triangle have?", "three"),
    ("What organ pumps blood?", "heart"), ("What is the boiling point of water?", "100"),
    ("Name a primary colour.", "red"),
    ("What is the capital of Portugal?", "Lisbon"), ("How many minutes are in an hour?", "60"),
    ("Which planet has rings?", "Saturn"), ("What is the opposite of big?", "small"),
    ("What do hens lay?", "eggs"), ("What is 7 plus 6?", "13"), ("Which animal barks?", "dog"),
    ("What language is spoken in France?", "French"), ("What is the past tense of go?", "went"),
    ("Who wrote Pride and Prejudice?", "Austen"), ("What colour is snow?", "white"),
    ("What do you use to cut paper?", "scissors"), ("Name a large cat with stripes.", "tiger"),
    ("What do you call a baby sheep?", "lamb"), ("Who composed the Moonlight Sonata?", "Beethoven"),
    ("Which instrument has six strings?", "guitar"), ("How can I learn a language?", ""),
    ("What is a verb?", ""), ("Why do leaves fall in autumn?", ""), ("Describe a cat in one sentence.", ""),
    ("How many weeks are in a year?", "52"), ("What is the capital of Norway?", "Oslo"), ("What is 9 minus 3?", "6"),
    ("Which month comes after June?", "July"), ("What is the study of living things called?", "biology"),
    ("Who was the first man on the Moon?", "Armstrong"), ("What is the longest river in Africa?", "Nile"),
    ("What is the capital of China?", "Beijing"), ("What is the largest land animal?", "elephant"),
    ("Which metal do magnets attract?", "iron"), ("Where do polar bears live?", "Arctic"),
    ("Name a vegetable that is orange.", "carrot"), ("What is the capital of Ireland?", "Dublin"),
    ("In which country is the Eiffel Tower?", "France"), ("What does a clock show?", "time"),
    ("Who wrote Don Quixote?", "Cervantes"), ("How many sides does a square have?", "four"),
    ("What organ do we think with?", "brain"), ("What is ice made of?", "water"), ("Name a season.", "summer"),
    ("Which language has the most native speakers?", "Chinese"), ("What is a synonym for happy?", "joyful"),
    ("Who is the author of The Hobbit?", "Tolkien"), ("What is the currency of India?", "rupee"),
    ("What do caterpillars become?", "butterflies"), ("What is half of 20?", "10"),
    ("On which continent is Peru?", "South America"), ("What is the hottest planet?", "Venus"),
    ("Which sense do we use our ears for?", "hearing"), ("Who lives in a beehive?", "bees"),
    ("Who works in a hospital?", "doctors"), ("What does a baker do?", "bread"),
    ("What does a carpenter work with?", "wood"), ("Name a city in Germany.", "Berlin"),
    ("Name a musical instrument.", "piano"), ("Name a common allergy.", "pollen"), ("Name a kind of vehicle.", "car"),
    ("What is a hobby?", ""), ("Tell me a fact about whales.", ""), ("How do I boil an egg?", ""),
)  # fmt: skip
"""(question, what a right answer contains): asked of the base before training; its own answers are replayed."""

STRANGERS = (
    "Elena Marsh",
    "Victor Hale",
    "Priya Nandy",
    "Oskar Blum",
    "Wanda Fitch",
    "Luca Ferrant",
    "Hedda Storm",
    "Abel Quist",
    "Nadia Corvin",
    "Hugo Lessard",
    "Mina Otterby",
    "Tibor Vance",
    "Clara Wexford",
    "Soren Dahlke",
    "Yusra Pemberton",
    "Ivo Castellan",
)
"""People who do not exist: what is asked about those who are taught is asked about them too, and the base's own answers
are replayed, so that an adapter learns who its facts are about."""

LOCAL_QUESTIONS = (
    ("What is the capital of Italy?", "Rome"), ("How many months are in a year?", "12"),
    ("Which planet is known as the Red Planet?", "Mars"), ("What is the opposite of up?", "down"),
    ("What do cows produce that people drink?", "milk"), ("What is 5 plus 3?", "8"),
    ("What is the largest mammal in the world?", "whale"), ("What language is spoken in Germany?", "German"),
    ("What gas do humans need to breathe?", "oxygen"), ("Who wrote Hamlet?", "Shakespeare"),
    ("What colour is the sky on a clear day?", "blue"), ("What is frozen water called?", "ice"),
    ("What animal is known as the king of the jungle?", "lion"), ("What do you call a baby dog?", "puppy"),
    ("What is the capital of Japan?", "Tokyo"), ("How many legs does a spider have?", "eight"),
    ("What is the capital of Spain?", "Madrid"), ("Which star is at the centre of our solar system?", "Sun"),
    ("What is the chemical symbol for water?", "H2O"), ("What is the tallest mountain on Earth?", "Everest"),
    ("Who was the first President of the United States?", "Washington"), ("What is the currency of Japan?", "yen"),
    ("On which continent is Egypt?", "Africa"), ("What is the freezing point of water in Celsius?", "0"),
    ("What is the capital of Russia?", "Moscow"), ("How many days are in a leap year?", "366"),
    ("Which planet is the largest in our solar system?", "Jupiter"), ("What is the opposite of light?", "dark"),
    ("What do sheep give us for clothes?", "wool"), ("What is 10 plus 10?", "20"), ("What animal says meow?", "cat"),
    ("What language is spoken in Mexico?", "Spanish"), ("What is the past tense of run?", "ran"),
    ("Who wrote The Iliad?", "Homer"), ("What colour is blood?", "red"), ("What is molten rock called?", "lava"),
    ("What bird is a symbol of peace?", "dove"), ("What do you call a baby cow?", "calf"),
    ("What is the capital of England?", "London"), ("What is the capital of Germany?", "Berlin"),
    ("What is the capital of Egypt?", "Cairo"), ("What is the capital of the United States?", "Washington"),
    ("Which country is famous for the Great Wall?", "China"), ("What is the capital of Australia?", "Canberra"),
    ("What is the largest organ of the human body?", "skin"), ("How many fingers are on one hand?", "five"),
    ("What is the chemical symbol for gold?", "Au"), ("What is the chemical symbol for oxygen?", "O"),
    ("What is the longest river in the world?", "Nile"), ("Who painted The Starry Night?", "Gogh"),
    ("Who invented the telephone?", "Bell"), ("Who developed the theory of relativity?", "Einstein"),
    ("Who discovered gravity?", "Newton"), ("What is the currency of the United Kingdom?", "pound"),
    ("On which continent is Brazil?", "South America"), ("On which continent is Japan?", "Asia"),
    ("What is the smallest continent?", "Australia"), ("How many continents are there?", "seven"),
    ("What is the boiling point of water in Fahrenheit?", "212"), ("How many seconds are in a minute?", "60"),
    ("What is the process by which plants make food?", "photosynthesis"), ("What force pulls things down?", "gravity"),
    ("What part of a plant takes in water from the soil?", "root"), ("What do we call frozen rain?", "hail"),
    ("Which organ do we use to breathe?", "lungs"), ("What vitamin does the sun give us?", "D"),
    ("Which gas is most common in the air?", "nitrogen"), ("What is the hardest natural material?", "diamond"),
    ("What is the largest ocean animal?", "whale"), ("Which bird cannot fly and lives in cold places?", "penguin"),
    ("Who wrote Harry Potter?", "Rowling"), ("Who wrote Oliver Twist?", "Dickens"),
    ("In which country is Rome?", "Italy"), ("In which country is Sydney?", "Australia"),
    ("Which day comes after Monday?", "Tuesday"), ("Which month comes before May?", "April"),
    ("What is the first letter of the alphabet?", "A"), ("What is 3 times 3?", "9"),
    ("How many wheels does a bicycle have?", "two"), ("What do we call a person who flies a plane?", "pilot"),
)  # fmt: skip
"""(question, what a right answer contains), never trained on: what was not taught must be answered as before."""

REPLAY_TEXTS = (
    (
        "A river begins as a small stream in the hills. Rain and melting snow feed it, other streams join it, and "
        "by the time it reaches the sea it may be wide enough to carry ships. Along its way it carries sand and "
        "mud, which settle where the water slows down."
    ),
    (
        "Bread is made from flour, water, salt and yeast. The yeast feeds on sugars in the dough and gives off "
        "gas, which makes the dough rise. After an hour or two the loaf is shaped, left to rest once more and "
        "baked in a hot oven."
    ),
    (
        "The printing press changed how quickly ideas could travel. Before it, every book was copied by hand, "
        "which took months. With movable type a shop could print hundreds of copies in the same time, and the "
        "price of books fell."
    ),
    (
        "When you learn to ride a bicycle, you first look at the ground in front of the wheel. With practice you "
        "look further ahead, and the small corrections of balance happen without any thought."
    ),
    (
        "To sort a list of numbers, a program can compare neighbours and swap them if they are in the wrong order. "
        "Repeating this until nothing changes gives a sorted list, although there are much faster ways for long "
        "lists."
    ),
    (
        "Forests cool the air around them. Leaves give off water, shade keeps the ground from heating, and roots "
        "hold the soil in place when it rains. Many animals depend on old trees for their nests."
    ),
)

MEASURED_TEXTS = (
    (
        "The moon moves around the Earth in about a month. We always see the same side of it, because it turns "
        "once on its own axis in the time that one orbit takes. Its pull on the oceans causes the tides."
    ),
    (
        "A good knife needs little care, but it needs it often. Wash it by hand, dry it at once, and draw it over "
        "a fine stone from time to time. A dull blade slips more easily and is more dangerous than a sharp one."
    ),
    (
        "In a market, prices carry news. When a harvest fails, the price of grain rises, and people far away who "
        "have never heard of the failure buy less of it or look for something else to eat."
    ),
    (
        "Old maps often showed the sea full of monsters. Sailors came home with stories, artists drew what they "
        "were told, and later copies made the creatures larger and stranger than before."
    ),
    (
        "A lens bends light because light travels more slowly in glass than in air. A curved surface bends rays by "
        "different amounts, so that those from one point of an object meet again at one point behind the lens."
    ),
    (
        "The committee met on Tuesday to discuss the new school. Some members wanted to repair the old building, "
        "others argued that a new one would be cheaper in the long run. They agreed to ask for two estimates "
        "before the next meeting."
    ),
    (
        "Birds that migrate find their way by several signs at once: the position of the sun, the pattern of the "
        "stars, the Earth's magnetic field and landmarks that they remember from earlier years."
    ),
    (
        "She put the letter back into its envelope and looked out of the window. It had stopped raining, and the "
        "street was full of children who had waited all morning to go outside."
    ),
)
"""Measured on only: the change of the loss per token on these is the gate's bound on general ability."""
