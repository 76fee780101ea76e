"""LatentCRS_V: a chat model puts the best items of LatentCRS_F in order (the released code has no such part)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from recllm_bench.conversation.dialogue import Dialogue
from recllm_bench.conversation.spoken import spoken_title, with_facts
from recllm_bench.data.catalogue import Catalogue
from recllm_bench.language.asking import Cost, ask
from recllm_bench.language.chat import Chat
from recllm_bench.language.ordering import NUMBER_TOKENS, listed, read_order, reordered
from recllm_bench.models.latentcrs.filtering import Extracted


class Verifier:
    """Asks for an order of items, the unfit left out.

    Parameters
    ----------
    catalogue : Catalogue
        Titles and facts.
    chat : Chat
        Who is asked.
    seed : int
        For a server that wants one.

    Attributes
    ----------
    counts : Counter
        ``answers``, and those that were ``unread``: their items keep the order they had.
    """

    def __init__(self, catalogue: Catalogue, chat: Chat, seed: int = 0) -> None:
        self.catalogue, self.chat, self.seed, self.counts = catalogue, chat, seed, Counter[str]()

    def order(
        self,
        lists: Sequence[Sequence[int]],
        extracted: Sequence[Extracted],
        dialogues: Sequence[Dialogue],
        costs: Sequence[Cost],
    ) -> list[list[int]]:
        """The items of each list, those named first, then those left out, in their old order; one batch of calls."""
        asked = [self._question(*row) for row in zip(lists, extracted, dialogues, strict=True)]
        most = NUMBER_TOKENS * max(map(len, lists), default=0)
        texts = ask(self.chat, asked, costs, max_tokens=max(1, most), seed=self.seed)
        found = []
        for items, text in zip(lists, texts, strict=True):
            order = read_order(text, [spoken_title(self.catalogue.titles[item]) for item in items])
            self.counts.update(answers=1, unread=int(order is None))
            found.append(reordered(items, order or []))
        return found

    def _question(self, items: Sequence[int], extracted: Extracted, dialogue: Dialogue) -> list[dict[str, str]]:
        wanted = "; ".join(extracted.intents or dialogue.user_sentences())
        shown = listed([with_facts(self.catalogue, item) for item in items])
        system = f"You check whether each {self.catalogue.domain} of a list is what a user wants.\nList:\n{shown}"
        last = (
            f"The user wants: {wanted}\nWrite the numbers of the list that fit, the best first, with commas. Leave out "
            "what does not fit. Write nothing else."
        )
        return [{"role": "system", "content": system}, {"role": "user", "content": last}]
