"""Captions of an emoji picture: its label, tags, kind and style, said in several orders."""

import random
from dataclasses import dataclass

KINDS = {
    "face-smiling": "face",
    "face-affection": "face",
    "face-tongue": "face",
    "face-hand": "face",
    "face-neutral-skeptical": "face",
    "face-sleepy": "face",
    "face-unwell": "face",
    "face-hat": "face",
    "face-glasses": "face",
    "face-concerned": "face",
    "face-negative": "face",
    "cat-face": "cat face",
    "heart": "heart",
    "hand-fingers-open": "hand",
    "hand-fingers-partial": "hand",
    "hand-single-finger": "hand",
    "hand-fingers-closed": "hand",
    "hands": "hands",
    "body-parts": "body part",
    "person": "person",
    "person-gesture": "person",
    "person-role": "person at work",
    "person-fantasy": "fantasy figure",
    "person-activity": "person",
    "person-sport": "sport",
    "person-resting": "person",
    "family": "people",
    "animal-mammal": "animal",
    "animal-bird": "bird",
    "animal-amphibian": "animal",
    "animal-reptile": "reptile",
    "animal-marine": "sea animal",
    "animal-bug": "bug",
    "plant-flower": "flower",
    "plant-other": "plant",
    "food-fruit": "fruit",
    "food-vegetable": "vegetable",
    "food-prepared": "food",
    "food-asian": "food",
    "food-sweet": "sweet food",
    "drink": "drink",
    "dishware": "dishware",
    "place-map": "map",
    "place-geographic": "landscape",
    "place-building": "building",
    "place-religious": "building",
    "place-other": "place",
    "transport-ground": "vehicle",
    "transport-water": "boat",
    "transport-air": "aircraft",
    "time": "clock",
    "sky-weather": "sky",
    "award-medal": "medal",
    "sport": "sport",
    "game": "game",
    "clothing": "clothing",
    "music": "music",
    "musical-instrument": "musical instrument",
    "phone": "phone",
    "computer": "computer",
    "book-paper": "paper",
    "money": "money",
    "mail": "mail",
    "writing": "writing",
    "office": "office",
    "lock": "lock",
    "tool": "tool",
    "science": "science",
    "medical": "medicine",
    "household": "household",
}
"""The everyday word for an emojibase subgroup; subgroups that have none are left unsaid."""

REPHRASED = {
    "breast-feeding": "woman breast-feeding",
    "ZZZ": "sleeping sign zzz",
    "cooking": "egg in a frying pan",
    "camping": "tent at a camp",
    "wedding": "wedding chapel",
    "locked": "locked padlock",
    "unlocked": "unlocked padlock",
    "locked with pen": "padlock with pen",
    "locked with key": "padlock with key",
    "speaker low volume": "speaker with low volume",
    "speaker medium volume": "speaker with medium volume",
    "speaker high volume": "speaker with high volume",
    "foggy": "foggy city",
    "oncoming fist": "fist from the front",
    "hourglass done": "hourglass that has run out",
    "hourglass not done": "running hourglass",
}
"""Labels that do not name the thing in the picture."""

ARTICLELESS = {
    *("Mrs. Claus", "Mx Claus", "Santa Claus", "Tokyo tower", "mount fuji", "woman and man"),
    *("bacon", "bread", "broccoli", "butter", "canned food", "cooked rice", "coral", "curry rice"),
    *("custard", "dango", "dna", "falafel", "flatbread", "fog", "fondue", "garlic", "ginger root"),
    *("green salad", "horse racing", "ice", "ice cream", "leafy green", "light rail", "luggage"),
    *("mate", "meat", "milky way", "nail polish", "oden", "people", "popcorn", "pouring liquid"),
    *("sake", "salt", "shaved ice", "soap", "soft ice cream", "spaghetti", "stuffed flatbread"),
    *("sushi", "thread", "wood", "yarn", "men", "women", "field hockey", "ice hockey", "lacrosse"),
    *("ping pong", "badminton", "tennis", "bowling", "performing arts", "thumbs up", "thumbs down"),
    *("fork and knife", "hammer and pick", "hammer and wrench", "nut and bolt", "dashing away"),
    *("skull and crossbones", "high voltage", "palms up together", "building construction"),
    *("construction", "airplane departure", "airplane arrival", "couch and lamp"),
    *("people wrestling", "men wrestling", "women wrestling", "people hugging"),
}
"""Noun phrases, or their part before "with", "of" and the like, that take no indefinite article."""


@dataclass(frozen=True)
class Idea:
    """What an emoji shows, whatever its style.

    `hexcode` is lower case with the variation selector left out; `subgroup` is emojibase's.
    """

    hexcode: str
    label: str
    tags: tuple[str, ...]
    group: str
    subgroup: str


def noun_phrase(label: str) -> str:
    """The label as a noun phrase: "woman: red hair" becomes "woman with red hair"."""
    label = REPHRASED.get(label, label)
    if label.endswith(("o’clock", "-thirty")):
        label = f"clock at {label}"
    head, colon, rest = label.partition(": ")
    if colon:
        if rest == "bald":
            label = f"bald {head}"
        elif rest == "beard":
            label = f"{head} with a beard"
        elif rest.endswith("hair"):
            label = f"{head} with {rest}"
        elif rest == "facing right":
            label = f"{head} facing right"
        elif head == "family":
            label = f"family of {_and(rest.split(', '))}"
        else:
            label = f"{head}, {_and(rest.split(', '))}"
    return label.replace("’", "'")


def with_article(phrase: str) -> str:
    """The phrase after "a", "an" or nothing, as its first noun asks."""
    head = phrase
    for mark in _AFTER_HEAD:
        head = head.split(mark)[0]
    plural = head.endswith("s") and not head.endswith(_SINGULAR_ENDINGS)
    if phrase in ARTICLELESS or head in ARTICLELESS or plural:
        return phrase
    first = phrase.split(" ")[0]
    return f"{'an' if _sounds_like_vowel(first) else 'a'} {phrase}"


def captions(idea: Idea, style: str, seed: int, count: int = 8) -> list[str]:
    """`count` captions of an idea in a style ("3d" or "flat"), the canonical one first.

    They depend on the seed, the idea and the style alone.
    """
    rng = random.Random(f"{seed}:{idea.hexcode}:{style}")
    phrase = noun_phrase(idea.label)
    named = with_article(phrase)
    kind = KINDS.get(idea.subgroup)
    tags = informative_tags(idea)
    rng.shuffle(tags)
    candidates = [
        f"{style} emoji of {named}",
        f"{phrase}, {style}",
        f"{named}, {style} emoji",
        f"{style} icon of {named}",
        f"{style} style, {phrase}",
        f"{style} icon: {phrase}",
    ]
    if tags:
        candidates += [
            f"{style} icon: {phrase}, {tags[0]}",
            f"{phrase}, {', '.join(tags[:2])}, {style}",
            f"{style} emoji, {tags[-1]}, {phrase}",
        ]
    if kind is not None and kind not in phrase:
        candidates += [f"{style} emoji, {kind}: {phrase}", f"{phrase}, {kind}, {style} icon"]
    rng.shuffle(candidates)
    canonical = f"a {style} emoji of {named}"
    return [canonical, *dict.fromkeys(c for c in candidates if c != canonical)][:count]


def informative_tags(idea: Idea) -> list[str]:
    """The idea's tags that say something its label does not: plain words of at most two parts."""
    said = set(noun_phrase(idea.label).lower().replace(",", "").split())
    return [
        tag
        for tag in (tag.lower() for tag in idea.tags)
        if not set(tag.split()) & said
        and tag.replace(" ", "").replace("-", "").isalpha()
        and tag.isascii()
        and len(tag) > 2
        and len(tag.split()) <= 2
    ]


_AFTER_HEAD = (
    *(" with ", " of ", " on ", " in ", " at ", " without ", " from ", " over ", " behind ", ","),
    *(" holding ", " lifting ", " showing ", " that "),
)
_SINGULAR_ENDINGS = ("ss", "us", "rhinoceros")


def _sounds_like_vowel(word: str) -> bool:
    if word.lower().startswith(("uni", "ukulele", "one", "use", "euro", "ewe")):
        return False
    return word[0].lower() in "aeiou" or word.lower() in ("hourglass", "x-ray")


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
