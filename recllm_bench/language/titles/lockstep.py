"""A batch of lists written in lock-step: read a block, decide, move on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch

from recllm_bench.language.backbone import Backbone
from recllm_bench.language.stepping import SHARED, shared_beginning
from recllm_bench.language.titles.drafting import Block, make_block
from recllm_bench.language.titles.walking import Rows, Walk

_SCORES_AT_ONCE = 1 << 26  # numbers of a matrix [decisions, vocabulary]


class Writer:
    """Writes a batch of lists.

    Parameters
    ----------
    walk : Walk
        What all batches share.
    prompts, before, forbid, most_edits, speculate, score
        As for :func:`~recllm_bench.language.titles.writing.write_lists`.

    Notes
    -----
    Tokens of a draft that was left stay in the key/value cache; the attention mask hides them from then on.
    """

    def __init__(
        self,
        walk: Walk,
        backbone: Backbone,
        prompts: Sequence[Sequence[int]],
        before: Sequence[Sequence[int]],
        forbid: Sequence[Iterable[int]],
        *,
        most_edits: int,
        speculate: bool,
        score: Callable[[torch.Tensor], torch.Tensor],
    ) -> None:
        self.walk, self.backbone, self.score = walk, backbone, score
        self.most_edits, self.speculate = most_edits, speculate
        self.rows = Rows.begin(walk, before, forbid, most_edits)
        self.out, self.sizes = self.rows.before.clone(), self.rows.size
        count = len(before)
        # Of every list of the batch: lines changed, lines kept by choice, lines answered.
        self.edits, self.copied = torch.zeros_like(self.sizes), torch.zeros_like(self.sizes)
        self.lines = self.sizes.clone()
        self.halted = torch.zeros_like(self.sizes, dtype=torch.bool)
        self.totals = torch.zeros(3, dtype=torch.long, device=walk.device)  # ambiguous, generated, verified
        self.prompts, self.passes = prompts, 0
        self.pool, self.cache = walk.pool, None
        self.mask = torch.zeros(count, 0, dtype=torch.long, device=walk.device)

    def run(self) -> list[list[int]]:
        """Write all lists; item ids by row."""
        rows = self.rows
        alive = (rows.size > 0) & (rows.n_barred < self.walk.n_free) & (self.most_edits > 0)
        if bool(alive.any()):
            self._begin()
        while True:
            left = int(alive.sum())
            if not left:
                break
            drafted = self._drafted(alive)
            drafting = self.speculate and bool(drafted.any())
            if left <= len(alive) // 2 or (drafting and left < len(alive)):
                alive, drafted = self._keep(alive, drafted)
            active = alive
            if drafting:  # rows inside a title come first, so that drafts are read together
                begun = alive & (self.rows.node > 0)
                active = torch.where(begun.any(), begun, alive)
            block = make_block(self.walk, self.rows, active, drafted, self.pool)
            states = self._read(block)
            alive = alive & ~self._settle(block, self._choose(block, states), active)
        self.walk.hope = float(self.copied.sum() / self.edits.sum().clamp(min=1))
        sizes = self.sizes.tolist()
        return [row[:size] for row, size in zip(self.out.tolist(), sizes, strict=True)]

    def counters(self) -> dict[str, int]:
        """What :data:`~recllm_bench.language.titles.writing.COUNTERS` says, where it is not 0 by construction."""
        edits = int(self.edits.sum())
        lines = int(self.lines.sum()) if self.walk.sequence else edits
        return {
            "n_lists": len(self.sizes),
            "n_lines": lines,
            "n_exact": lines,
            "n_ambiguous": int(self.totals[0]),
            "n_len_mismatch": int(self.halted.sum()),
            "n_changed_positions": edits,
            "n_unchanged": int((self.edits == 0).sum()),
        }

    def tokens(self) -> dict[str, int]:
        """Tokens of prompts, written and verified, and passes of the language model."""
        prompt = sum(map(len, self.prompts))
        return {
            "prompt": prompt,
            "generated": int(self.totals[1]),
            "verified": int(self.totals[2]),
            "passes": self.passes,
        }

    # before the first decision ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Put the prompts before everything else; what all begin with is read once."""
        device = self.walk.device
        lengths = torch.tensor([len(prompt) for prompt in self.prompts], device=device)
        flat = np.concatenate([np.asarray(prompt, np.int64) for prompt in self.prompts])
        start = lengths.cumsum(0) - lengths + len(self.pool)
        self.pool = torch.cat([self.pool, torch.from_numpy(flat).to(device)])
        shared = shared_beginning(self.prompts) if len(self.prompts) > 1 else 0
        if shared >= SHARED:
            first = torch.from_numpy(flat[:shared]).to(device)[None]
            mask = torch.ones_like(first)
            _, cache = self.backbone.advance(self.backbone.embed(first), mask, mask.cumsum(1) - 1)
            self.passes += 1
            if hasattr(cache, "batch_repeat_interleave"):
                cache.batch_repeat_interleave(len(self.prompts))
                self.cache, self.mask = cache, mask.expand(len(self.prompts), -1)
                self.rows.length += shared
                start, lengths = start + shared, lengths - shared
        self.rows.start[:, 0], self.rows.count[:, 0] = start, lengths
        self.totals[1] += self.rows.count[:, 2].sum()

    def _drafted(self, alive: torch.Tensor) -> torch.Tensor:
        """Lines to draft for each row that is about to begin a title: twice as many as one may hope to keep."""
        rows = self.rows
        if not self.speculate:
            return torch.zeros_like(rows.size)
        hoped = 2 * (self.copied[rows.number] + self.walk.hope) / (self.edits[rows.number] + 1)
        return torch.where(alive & (rows.node == 0), torch.minimum(hoped.long(), rows.size - rows.line), 0)

    # the language model -----------------------------------------------------------------------------------------------

    def _read(self, block: Block) -> torch.Tensor:
        """States of a block, [B, T, width]."""
        rows = self.rows
        mask = torch.cat([self.mask, block.inside.long()], 1)
        places = torch.arange(block.tokens.shape[1], device=mask.device)
        positions = (rows.length[:, None] + places).clamp(max=self.backbone.context - 1)
        self.passes += 1
        states, self.cache = self.backbone.advance(self.backbone.embed(block.tokens), mask, positions, self.cache)
        return states.to(mask.device)  # a model may lie on several devices

    def _choose(self, block: Block, states: torch.Tensor) -> torch.Tensor:
        """The edge that each decision takes, int64 [D]."""
        walk, rows = self.walk, self.rows
        barred = rows.barred
        own = torch.full_like(block.line, -1)
        if walk.sequence:
            own = rows.own[block.row, block.line]
        else:  # edits go down the list: lines up to the last one that changed, and those beyond its end, are closed
            number = torch.arange(1, len(walk.position_path), device=walk.device)
            closed = (number <= rows.line[:, None] + 1) | (number > rows.size[:, None])
            barred = torch.cat([barred, torch.where(closed, walk.position_path[1:], walk.nothing)], 1)
        keys = walk.chooser.keys(barred)
        size = max(1, _SCORES_AT_ONCE // self.backbone.vocabulary)
        edges = []
        for some in torch.arange(len(block.row), device=walk.device).split(size):
            scores = self.score(states[block.row[some], block.place[some]]).to(walk.device)
            edges.append(walk.chooser.choose(scores, block.node[some], own[some], block.row[some], keys))
        return torch.cat(edges)

    # what follows -----------------------------------------------------------------------------------------------------

    def _settle(self, block: Block, edges: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
        """Take the first decision of each row that departs from its draft, or its last; which rows are done, [B]."""
        walk, rows = self.walk, self.rows
        full = rows.length[block.row] + block.place + 1 + walk.reserve > self.backbone.context
        full &= (block.node == 0) | (block.node == walk.positions_root)  # a line that has begun has room to end
        departs = (walk.trie.edge_token[edges] != block.expected) | full
        far = block.tokens.shape[1]
        stop = torch.full_like(rows.line, far)
        stop = stop.scatter_reduce(0, block.row, torch.where(departs, block.place, far), "amin")
        taken = (departs & (block.place == stop[block.row])).nonzero()[:, 0]
        row, edge, node, line = block.row[taken], edges[taken], block.node[taken], block.line[taken]

        accepted = torch.where(active, torch.minimum(stop + 1, block.lengths), 0)
        places = torch.arange(far, device=stop.device)
        self.mask = torch.cat([self.mask, (places < accepted[:, None]).long()], 1)
        rows.length = rows.length + accepted
        self.totals[2] += (accepted - block.settled).clamp(min=0).sum()
        rows.start, rows.count = (torch.where(active[:, None], 0, value) for value in (rows.start, rows.count))

        done = active.clone()  # those without a departure: their drafts stand to the end
        done[row] = False
        self.copied[rows.number] += torch.where(done, rows.size - rows.line, 0)
        done[row] = full[taken]
        self.copied[rows.number[row]] += line - rows.line[row]
        self.halted[rows.number[row]] = full[taken]
        self.lines[rows.number[row[full[taken]]]] = line[full[taken]]
        moving = ~full[taken]
        return self._move(row[moving], edge[moving], node[moving], line[moving], done)

    def _move(
        self, row: torch.Tensor, edge: torch.Tensor, node: torch.Tensor, line: torch.Tensor, done: torch.Tensor
    ) -> torch.Tensor:
        """Walk on from a decision to the next one: tokens that are the only ones possible are taken on the way."""
        walk, rows, trie = self.walk, self.rows, self.walk.trie
        child = trie.edge_child[edge]
        path, stand = trie.first[child], trie.skip[child]
        rows.start[row, 1] = trie.path_start[path] + trie.depth[node]
        rows.count[row, 1] = trie.depth[stand] - trie.depth[node]
        rows.node[row], rows.line[row] = stand, line
        self.totals[1] += rows.count[row, 1].sum()

        ended = walk.degree[stand] == 0
        chosen = (ended & (path >= walk.n_titles)).nonzero()[:, 0]  # the line of an edit, or the end of text
        if not walk.sequence:
            place = walk.line_of_position[(path[chosen] - walk.n_titles)]
            done[row[chosen]] = place < 0
            rows.line[row[chosen]], rows.node[row[chosen]] = place, 0
        titled = (ended & (path < walk.n_titles)).nonzero()[:, 0]
        self._title(row[titled], path[titled], done)
        return done

    def _title(self, row: torch.Tensor, path: torch.Tensor, done: torch.Tensor) -> None:
        """A title has been written in each of these rows."""
        walk, rows = self.walk, self.rows
        line, number = rows.line[row], rows.number[row]
        fresh = path != rows.own[row, line] if walk.sequence else torch.ones_like(row, dtype=torch.bool)
        self.out[number, line] = torch.where(fresh, walk.meant[path], rows.before[row, line])
        self.totals[0] += (fresh & walk.ambiguous[path]).sum()
        # The first empty column: each row has one left for each edit it may make.
        column = rows.barred.shape[1] - self.edits[number] - 1
        rows.barred[row, column] = torch.where(fresh, path, rows.barred[row, column])
        rows.n_barred[row] += fresh
        self.edits[number] += fresh
        self.copied[number] += ~fresh
        finished = (self.edits[number] >= self.most_edits) | (rows.n_barred[row] >= walk.n_free)
        finished |= line + 1 >= rows.size[row]
        done[row] = finished
        if walk.sequence:
            following = (line + 1).clamp(max=len(walk.head_start) - 1)
            rows.start[row, 2] = walk.head_start[following]
            rows.count[row, 2] = torch.where(finished, 0, walk.head_length[following])
            self.totals[1] += rows.count[row, 2].sum()
            rows.node[row], rows.line[row] = 0, line + 1
        else:
            rows.node[row] = walk.positions_root

    def _keep(self, alive: torch.Tensor, drafted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Forget the rows that are done, where the cache can."""
        if self.cache is not None:
            if not hasattr(self.cache, "batch_select_indices"):
                return alive, drafted
            self.cache.batch_select_indices(alive.nonzero()[:, 0])
        self.rows, self.mask = self.rows.take(alive), self.mask[alive]
        return alive[alive], drafted[alive]
