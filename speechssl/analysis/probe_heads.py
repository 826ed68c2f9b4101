"""Train the linear heads of a probe on every layer at once, and measure them.

Shapes: N recordings or frames, B utterances, L layers, H heads (one for each layer and one for
their mix, or that one alone), T frames, D width, C outputs, V tokens, n outputs in time for each
frame.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from speechssl.analysis.probe_examples import Examples
from speechssl.analysis.probe_frames import ReadFrames, frames_of_recordings
from speechssl.decoding.greedy import greedy, min_ctc_frames
from speechssl.encoder.encoder import Encoder
from speechssl.runtime.seeds import generator
from speechssl.scoring.score import score
from speechssl.text.tokenizers import CharTokenizer, train_tokenizer

# Added to standard deviations, which are 0 where a channel never changes.
_STD_EPS = 1e-5

# Classifier: weight of the squared weights in its loss, and most steps of L-BFGS.
_WEIGHT_DECAY = 1e-3
_LBFGS_STEPS = 100

# Linear CTC: an output at least this often has room for the letters of fast speech, seconds.
_OUTPUT_S = 0.02

# Linear CTC: updates of Adam, its learning rate at the start, which falls to 0, and utterances of
# a batch.
UPDATES = 240
_LR = 1e-2
_CTC_BATCH = 32


def class_errors(
    examples: Examples, encoder: Encoder, read_frames: ReadFrames, only_mix: bool
) -> tuple[list[float], float]:
    """Classify recordings by the mean of their frames: multinomial logistic regression by L-BFGS.

        loss = sum over heads of the mean cross entropy + 1e-3 / 2 * sum of squared weights

    Returns:
        errors: of each head, the share of held-out recordings whose class is wrong.
        chance: the error of always naming the most frequent class.
    """
    pooled = torch.stack(frames_of_recordings(examples.dataset, encoder, read_frames, pool=True))
    num_layers, width = pooled.shape[1:]  # pooled is (N, L, D)

    names = sorted(set(examples.labels[: examples.train]))
    number_of_name = {name: number for number, name in enumerate(names)}
    # -1 is a class that was never seen, and that no answer meets.
    labels = torch.tensor([number_of_name.get(name, -1) for name in examples.labels])
    learn_labels = labels[: examples.train]
    hold_labels = labels[examples.train :]

    learn = pooled[: examples.train]
    mean = learn.mean(0)
    std = learn.std(0) + _STD_EPS
    learn = (learn - mean) / std
    hold = (pooled[examples.train :] - mean) / std

    heads = _Heads(num_layers, width, len(names), only_mix)
    _fit_classifier(heads, learn, learn_labels)

    with torch.no_grad():
        answers = heads(hold).argmax(-1)  # (N, H)
    wrong = answers != hold_labels[:, None]
    errors = wrong.float().mean(0).tolist()

    most_frequent = learn_labels.bincount().argmax()
    chance = float((hold_labels != most_frequent).float().mean())
    return errors, chance


def character_errors(
    examples: Examples, encoder: Encoder, read_frames: ReadFrames, seed: int, only_mix: bool
) -> tuple[list[float], float]:
    """Read characters frame by frame: one linear layer and CTC, decoded greedily.

    Returns:
        errors: of each head, the character error rate on the held-out recordings.
        chance: 1, the error of reading nothing.
    """
    tokenizer = train_tokenizer("chars", examples.labels[: examples.train])
    assert isinstance(tokenizer, CharTokenizer)

    config = encoder.config
    seconds_per_frame = config.samples_per_frame / config.features.sample_rate_hz
    per_frame = max(1, round(seconds_per_frame / _OUTPUT_S))

    features = frames_of_recordings(examples.dataset, encoder, read_frames, pool=False)
    features = _normalised(features, examples.train)
    reader = _CharacterReader(features, tokenizer, per_frame, only_mix)

    learned = range(examples.train)
    reader.learn([examples.labels[position] for position in learned], seed)

    held_out = list(range(examples.train, len(features)))
    references = {str(position): examples.labels[position] for position in held_out}
    errors = []
    for texts in reader.read(held_out):
        hypotheses = {str(position): text for position, text in zip(held_out, texts, strict=True)}
        errors.append(score(references, hypotheses).cer)
    return errors, 1.0


class _Heads(nn.Module):
    """A linear head for each of L layers and one for their mix, side by side.

    The mix weighs the layers by a softmax that is learned with the heads.
    """

    def __init__(self, layers: int, width: int, outputs: int, only_mix: bool) -> None:
        super().__init__()
        num_heads = 1 if only_mix else layers + 1
        self.weight = nn.Parameter(torch.zeros(num_heads, width, outputs))
        self.bias = nn.Parameter(torch.zeros(num_heads, outputs))
        self.mix = nn.Parameter(torch.zeros(layers))

    @property
    def count(self) -> int:
        """Number of heads, H."""
        return len(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(N, L, D) -> (N, H, C)."""
        mixed = torch.einsum("nld,l->nd", features, self.mix.softmax(0))[:, None]
        inputs = mixed if self.count == 1 else torch.cat([features, mixed], 1)  # (N, H, D)
        return torch.einsum("nld,ldc->nlc", inputs, self.weight) + self.bias


def _fit_classifier(heads: _Heads, learn: Tensor, labels: Tensor) -> None:
    """Train all heads by L-BFGS.

    Args:
        learn: (N, L, D).
        labels: (N,) int64.
    """
    optimizer = torch.optim.LBFGS(
        heads.parameters(), max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = heads(learn)  # (N, H, C)
        wanted = labels.repeat_interleave(heads.count)

        # A mean over recordings and heads. The heads share no weights, so their sum is wanted.
        cross_entropy = F.cross_entropy(logits.flatten(0, 1), wanted)
        penalty = _WEIGHT_DECAY * heads.weight.square().sum() / 2
        loss: Tensor = cross_entropy * heads.count + penalty

        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _normalised(features: Sequence[Tensor], train: int) -> list[Tensor]:
    """Bring each channel to mean 0 and variance 1 over the first ``train`` recordings.

    Args:
        features: (L, T, D) float16 of each recording.

    Returns:
        The same in float32.
    """
    joined = torch.cat([own.float() for own in features[:train]], 1)
    mean = joined.mean(1, keepdim=True)
    std = joined.std(1, keepdim=True) + _STD_EPS
    return [(own.float() - mean) / std for own in features]


class _CharacterReader:
    """Linear CTC heads over recordings whose frames are all held in memory.

    Args:
        features: (L, T, D) float32 of each recording.
        per_frame: outputs in time for each frame, n.
    """

    def __init__(
        self, features: Sequence[Tensor], tokenizer: CharTokenizer, per_frame: int, only_mix: bool
    ) -> None:
        self.features = features
        self.tokenizer = tokenizer
        self.per_frame = per_frame

        num_layers, _, width = features[0].shape
        self.heads = _Heads(num_layers, width, per_frame * tokenizer.size, only_mix)

    def learn(self, texts: Sequence[str], seed: int) -> None:
        """Train on the first recordings, those of ``texts``.

        loss = sum of the CTC losses over heads and utterances / number of characters
        """
        tokens = [torch.tensor(self.tokenizer.encode(text)) for text in texts]
        usable = [position for position, own in enumerate(tokens) if self._has_room(position, own)]
        size = min(_CTC_BATCH, len(usable))

        optimizer = torch.optim.Adam(self.heads.parameters(), lr=_LR)
        rng = generator("probe", seed)

        for update in range(UPDATES):
            for group in optimizer.param_groups:
                group["lr"] = _LR * (1 - update / UPDATES)
            optimizer.zero_grad()

            chosen = rng.choice(usable, size, replace=False).tolist()
            log_probs, num_outputs = self._log_probs(chosen)

            own_tokens = [tokens[position] for position in chosen]
            num_characters = sum(len(own) for own in own_tokens)
            # Every head has the same targets.
            targets = own_tokens * self.heads.count
            target_lengths = torch.tensor([len(own) for own in targets])

            total = F.ctc_loss(
                log_probs.transpose(0, 1),
                torch.cat(targets),
                num_outputs,
                target_lengths,
                reduction="sum",
            )
            loss = total / num_characters
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    @torch.no_grad()
    def read(self, positions: Sequence[int]) -> list[list[str]]:
        """Transcribe the recordings at ``positions`` with each head.

        Returns:
            For each head, the text of each recording.
        """
        texts: list[list[str]] = [[] for _ in range(self.heads.count)]

        for start in range(0, len(positions), _CTC_BATCH):
            chosen = positions[start : start + _CTC_BATCH]
            log_probs, num_outputs = self._log_probs(chosen)
            ids_of_rows = greedy(log_probs, num_outputs, self.tokenizer.blank_id)
            found = [self.tokenizer.decode(ids) for ids in ids_of_rows]

            # All utterances of the first head stand first.
            for head, own_texts in enumerate(texts):
                own_texts += found[head * len(chosen) : (head + 1) * len(chosen)]

        return texts

    def _has_room(self, position: int, tokens: Tensor) -> bool:
        """Tell whether a recording has outputs enough for its tokens: else its loss is infinite."""
        num_outputs = self.features[position].shape[1] * self.per_frame
        return num_outputs >= max(1, min_ctc_frames(tokens.tolist()))

    def _log_probs(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the outputs of every head for some recordings.

        Returns:
            log_probs: (H B, n T, V), all utterances of the first head first.
            num_outputs: (H B,) int64, valid outputs.
        """
        frames = [self.features[position].transpose(0, 1) for position in chosen]
        padded = nn.utils.rnn.pad_sequence(frames, batch_first=True)  # (B, T, L, D)

        batch, length = padded.shape[:2]
        logits = self.heads(padded.flatten(0, 1)).unflatten(0, (batch, length))  # (B, T, H, n V)
        logits = logits.unflatten(-1, (self.per_frame, self.tokenizer.size))
        logits = logits.permute(2, 0, 1, 3, 4)  # (H, B, T, n, V)
        logits = logits.flatten(2, 3).flatten(0, 1)

        num_outputs = torch.tensor([len(own) * self.per_frame for own in frames])
        return logits.log_softmax(-1), num_outputs.repeat(self.heads.count)
