"""What in a conversation is no wish: commands, and small talk that changes nothing."""

from __future__ import annotations

import re

from recllm_bench.conversation.redaction import SMALL_WORDS
from recllm_bench.talk.vocabulary import NOUNS, word_set

MORE, UNDO, RESTART, ACCEPT, SEEN = "more", "undo", "start over", "accept", "seen"
HISTORY, WISHES, HELP, QUIT, SHOW, SMALL_TALK = "history", "wishes", "help", "quit", "show", "small talk"

_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth"
ORDINALS = dict(zip(_ORDINALS.split(), range(1, 11), strict=True))
_NUMBER = rf"(?:the |number |no |nr |item )*(?P<number>\d{{1,2}}|{'|'.join(ORDINALS)}|last)(?: one)?"
_ASK = r"(?:can you |could you |please |just |show |give |list |i want |i d like |id like |let me see |me )*"
_SAID = {
    MORE: """
        ASK(?:some |a few |any )?(?:more|next|others?|another|other ones)(?: ones?| of them| like that| options| NOUN)*
        ASK(?:something|anything|what) else|something different|different ones|next page|go on|continue|keep going
        (?:not these|none of (?:these|them))
    """,
    UNDO: "undo|undo that|go back|back|step back|take (?:that|it) back|revert|oops",
    RESTART: """
        start over|start again|restart|reset|clear|new search|from scratch|begin again
        forget (?:everything|all|it all|all that|all of that)
        (?:something |lets try something )?(?:completely|totally|entirely) (?:new|different)
    """,
    HISTORY: """
        history|ASK(?:my |the )?history|what do you know(?: about me)?
        what have i (?:seen|watched|played|read|bought)
    """,
    WISHES: """
        filters?|the filter|wish|wishes|my wish(?:es)?|status|what do you filter
        what did i (?:say|ask|ask for)
    """,
    HELP: "help|help me|commands|what can (?:i|you) (?:say|do|ask)|how does (?:this|it) work",
    QUIT: "quit|exit|q|bye|bye bye|goodbye|good bye|see you|stop|end|that is all|thats all|im done|i am done",
    SHOW: """
        anything|whatever|surprise me|i dont (?:know|care|mind)
        ASK(?:what do you |(?:do )?you )?(?:recommend|suggest)(?: me)?(?: something| anything| NOUN)*
        ASK(?:something|anything|NOUN)+(?: good| nice| great)?
        what should i (?:watch|see|play|read|buy|hear|listen to)(?: next)?|what do you have
    """,
    ACCEPT: """
        (?:(?:i|ill|i will|yes|okay) )?(?:(?:accept|take|choose|pick|go with|watch|play|read|buy|want|ok) )?NUMBER
    """,
}


def _compiled(phrases: str) -> re.Pattern[str]:
    """One pattern of phrases with bars or new lines between them."""
    lines = "|".join(line.strip() for line in phrases.strip().splitlines())
    noun = rf"(?:{'|'.join(sorted(NOUNS))})s?"
    for name, pattern in (("ASK", _ASK), ("NOUN", noun), ("NUMBER", _NUMBER)):
        lines = lines.replace(name, pattern)
    return re.compile(f"(?:{lines})")


_COMPILED = {name: _compiled(phrases) for name, phrases in _SAID.items()}
_SEEN = re.compile(
    r"^(?:i have |i ve |ive |i )?(?:already |just )?(?:seen|saw|watched|know|played|read|own|bought|heard)\b"
    r"(?: already)?(?P<rest>.*)$"
)
_TAKES = re.compile(
    r"^\s*(?:accept|i(?:'ll| will) (?:take|watch|go with|play|read)|i take|i choose|i pick|take|choose|pick)\s+"
    r"(?P<rest>.+?)\s*[.!]*$",
    re.IGNORECASE,
)
_POLITE = re.compile(r"\b(?:please|thanks|thank you|pls)\b")
_LINKS = word_set("and the number no one ones it")
_TALK = word_set(
    """hello hi hiya hey yo greetings welcome morning afternoon evening night day thanks thank thx cheers bye great
    nice cool awesome perfect wonderful lovely amazing excellent fine ok okay alright sure yes yeah yep no nope maybe
    lol haha hmm hm um uh well sorry please pleased meet name whats hows doing today old friend chat bot there wow
    interesting right good bad weather robot human computer ai really so"""
)
FILLERS = (
    SMALL_WORDS
    | NOUNS
    | word_set(
        """want wants need needed show give find recommend suggest make prefer try look looking search searching
        something anything everything nothing please id ill im ive dont doesnt like liked love loved enjoy enjoyed
        watch watching watched see seeing seen play playing read reading buy hear listen new best good great nice top
        really quite rather maybe perhaps also instead kind kinds sort type types genre genres category categories bit
        lot little much many today tonight evening weekend night time way lets let get go going got think feel mood
        feeling know tell say said mean either neither without except never any some another else one ones would could
        should hi hello hey thanks thank films movies games books items products titles shows things albums songs
        records places less least most very too friend made released directed year years decade decades fan similar
        style people ok okay yes anymore again still even though actually set sure fine well cant couldnt wont wouldnt
        isnt arent aint avoid hate dislike skip than but only just not no nor or and plus besides including featuring
        about involving drop forget ignore remove mind care matter regardless lift allow allowed must having has"""
    )
)
"""Words that are passed over in silence; any other that is no fact is told."""


def command_in(spoken: str) -> tuple[str, int]:
    """The command that a sentence is, and the number in it.

    Parameters
    ----------
    spoken : str
        Its words, folded, with single spaces.

    Returns
    -------
    name : str
        Empty when the sentence is none.
    number : int
        Of the list that was shown, from 1; -1 for the last, 0 without one.
    """
    bare = " ".join(_POLITE.sub(" ", spoken).split())
    for name, pattern in _COMPILED.items():
        if match := pattern.fullmatch(bare):
            said = match.groupdict().get("number") or "0"
            return name, -1 if said == "last" else ORDINALS.get(said) or int(said)
    return "", 0


def seen_in(spoken: str) -> str | None:
    """What somebody says to know already: numbers or a title; None when the sentence says no such thing."""
    match = _SEEN.match(spoken)
    return match["rest"].strip() if match else None


def taken_in(text: str) -> str:
    """The title that somebody takes; empty when the sentence says no such thing."""
    match = _TAKES.match(text)
    return match["rest"] if match else ""


def numbers_in(spoken: str) -> list[int]:
    """Numbers of a list, and nothing else: "1 and 3", "the second"; empty where there is anything else."""
    found = [
        ORDINALS.get(word) or (int(word) if word.isdigit() and len(word) < 3 else 0)
        for word in spoken.split()
        if word not in _LINKS
    ]
    return found if found and all(found) else []


def is_small_talk(unknown: list[str]) -> bool:
    """Whether words that name nothing are what people say to be polite."""
    return all(word in _TALK or word in FILLERS for word in unknown)
