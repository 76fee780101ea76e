"""Ways to say it. Every pool has two halves: those of training users, and those that only tested users speak.

``{wish}`` is a noun phrase of facts, ``{like}`` a title of the history, ``{never}`` what is not wanted, ``{place}`` the
place of an item in the list just shown.
"""

from __future__ import annotations

from typing import NamedTuple


class Phrasings(NamedTuple):
    """One half of the pools.

    Attributes
    ----------
    frames : tuple of str
        Sentences around a wish.
    but, never : tuple of str
        A dislike within the wish, and as a sentence.
    alike, liked : tuple of str
        A title of the history within the wish, and as a sentence.
    refusals, plain_refusals, more, again, accepted : tuple of str
        Answers to what was shown: with a reason and without; one more wish, the wish once more; and yes.
    older, newer, nearer : tuple of str
        Comparisons with what was shown.
    familiar : tuple of str
        Something of the user's own history was shown.
    corrected : tuple of str
        Something refused was shown again.
    answered, unsure : tuple of str
        Something to say to a question, and nothing.
    leaving : tuple of str
        The end of patience.
    """

    frames: tuple[str, ...]
    but: tuple[str, ...]
    never: tuple[str, ...]
    alike: tuple[str, ...]
    liked: tuple[str, ...]
    refusals: tuple[str, ...]
    plain_refusals: tuple[str, ...]
    more: tuple[str, ...]
    again: tuple[str, ...]
    accepted: tuple[str, ...]
    older: tuple[str, ...]
    newer: tuple[str, ...]
    nearer: tuple[str, ...]
    familiar: tuple[str, ...]
    corrected: tuple[str, ...]
    answered: tuple[str, ...]
    unsure: tuple[str, ...]
    leaving: tuple[str, ...]


TRAINING = Phrasings(
    frames=(
        "I'm in the mood for {wish}.",
        "Can you recommend {wish}?",
        "I'd like {wish}.",
        "Got any ideas for {wish}?",
        "Hey, I could do with {wish}.",
        "What would you pick if I want {wish}?",
        "Help me choose {wish}, please.",
        "Lately I keep wanting {wish}.",
        "Is there {wish} that you would point me to?",
        "Today {wish} would be nice.",
        "It has been a while since I had {wish}.",
        "Any chance of {wish}?",
        "Let's go for {wish}.",
        "I wonder if you have {wish}.",
        "{wish} would make my day.",
        "Maybe {wish}?",
        "My wish for now: {wish}.",
        "If possible, {wish}.",
    ),
    but=(
        "{wish}, but no {never}",
        "{wish}, though not {never}",
        "{wish} and no {never}",
        "{wish}, and please no {never}",
    ),
    never=("No {never}, please.", "I've had enough of {never}.", "I can't stand {never}."),
    alike=("{wish}, something like {like}", "{wish} in the vein of {like}", "{wish} close to {like}"),
    liked=("I enjoyed {like}.", "The last one I liked was {like}.", "{like} was fun, say."),
    refusals=(
        "No, I don't want {never}.",
        "Not quite: please, not {never}.",
        "Thanks, but no {never}.",
        "Could we do without {never}?",
    ),
    plain_refusals=(
        "No, that's not it.",
        "Not quite.",
        "Thanks, but no.",
        "Nothing for me there.",
        "Still no.",
        "What else is there?",
    ),
    more=("It should be {wish}.", "What I want is {wish}.", "Rather {wish}.", "Make it {wish}."),
    again=("As I said, {wish}.", "Still {wish}.", "I meant {wish}."),
    accepted=("Yes, that's it.", "Yes, I'll take it."),
    older=(
        "Something older than the {place} one.",
        "It should be older than the {place} one.",
        "Earlier than the {place} one, perhaps.",
    ),
    newer=(
        "Something newer than the {place} one.",
        "It should be newer than the {place} one.",
        "Later than the {place} one, perhaps.",
    ),
    nearer=("More like the {place} one.", "The kind is more like the {place} one.", "The {place} one is nearly it."),
    familiar=("I know the {place} one already.", "The {place} one is familiar."),
    corrected=("I said no {never}.", "But no {never}, remember?"),
    answered=("{wish}, please.", "Preferably {wish}.", "{wish}, I suppose."),
    unsure=("I don't know yet.", "No idea, really.", "Hard to tell."),
    leaving=("I'll look elsewhere.", "Never mind, I give up."),
)
TESTED = Phrasings(
    frames=(
        "I'm looking for {wish}.",
        "Do you know {wish}?",
        "Hi there! Please find me {wish}.",
        "I think I need {wish}.",
        "Could you suggest {wish}?",
        "Right now {wish} sounds good.",
        "I'd love {wish}.",
        "Show me {wish}.",
        "What about {wish}?",
        "I'm after {wish}.",
        "{wish} is what I'm hoping for.",
        "Which one should I try, given that I want {wish}?",
        "Tell me about {wish}.",
        "I can't decide, but {wish} seems right.",
        "Suggestions for {wish}, anyone?",
        "Would you have {wish} for me?",
        "I haven't had {wish} in ages.",
        "Surprise me with {wish}.",
    ),
    but=(
        "{wish}, just not {never}",
        "{wish}, anything but {never}",
        "{wish}, no {never} though",
        "{wish}, not {never}",
    ),
    never=("Please, nothing with {never}.", "I'm tired of {never}.", "I'm not into {never}."),
    alike=("{wish}, along the lines of {like}", "{wish} similar to {like}", "{wish}, a bit like {like}"),
    liked=("I really liked {like}.", "{like} was great, for example.", "Something as good as {like}, ideally."),
    refusals=(
        "Hmm, I was not after {never}.",
        "Not {never}, thank you.",
        "Nothing with {never}, please.",
        "I'd rather not have {never}.",
        "Can we skip {never}?",
    ),
    plain_refusals=(
        "Hmm, that's not the one.",
        "Not this time.",
        "I don't think so.",
        "None of these, I'm afraid.",
        "No luck yet.",
        "Anything else?",
    ),
    more=("Could it be {wish}?", "Better {wish}.", "I'd sooner have {wish}.", "How about {wish}?"),
    again=("As before, {wish}.", "I do mean {wish}.", "I was thinking of {wish}.", "{wish}, like I asked."),
    accepted=("Great, that one.", "Perfect, thanks."),
    older=(
        "Older than the {place} one, I think.",
        "I'd go for one older than the {place} one.",
        "A bit older than the {place} one, if you can.",
    ),
    newer=(
        "Newer than the {place} one, I think.",
        "I'd go for one that is more recent than the {place} one.",
        "A bit newer than the {place} one, if you can.",
    ),
    nearer=(
        "Closer to the {place} one, please.",
        "I'd say it is closer to the {place} one.",
        "The {place} one comes close.",
    ),
    familiar=("The {place} one I've come across.", "The {place} one is not new to me."),
    corrected=("As I told you, not {never}.", "I did say nothing with {never}."),
    answered=("{wish}, I'd say.", "Ideally {wish}.", "{wish} would be best."),
    unsure=("I'd have to think about it.", "I couldn't say.", "Not sure about that."),
    leaving=("Let's leave it there.", "Thanks, I'll try somewhere else."),
)
