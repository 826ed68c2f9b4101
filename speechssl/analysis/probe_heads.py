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
from speechssl.text.character_tokenizer import CharTokenizer
from speechssl.text.tokenizers import train_tokenizer

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
    means = frames_of_recordings(examples.dataset, encoder, read_frames, pool=True)
    pooled = torch.stack(means)  # (N, L, D)
    _, num_layers, width = pooled.shape

    # The classes are those that can be learned.
    num_learned = examples.train
    seen_labels = set(examples.labels[:num_learned])
    names = sorted(seen_labels)
    number_of_name = {name: number for number, name in enumerate(names)}

    # -1 is a class that was never seen, and that no answer meets.
    numbers = [number_of_name.get(label, -1) for label in examples.labels]
    labels = torch.tensor(numbers)
    learn_labels = labels[:num_learned]
    hold_labels = labels[num_learned:]

    # Held-out recordings may not influence how they are normalised.
    learn = pooled[:num_learned]
    hold = pooled[num_learned:]
    mean = learn.mean(0)
    std = learn.std(0) + _STD_EPS
    learn = (learn - mean) / std
    hold = (hold - mean) / std

    num_classes = len(names)
    heads = _Heads(num_layers, width, num_classes, only_mix)
    _fit_classifier(heads, learn, learn_labels)

    with torch.no_grad():
        scores = heads(hold)  # (N, H, C)
    answers = scores.argmax(-1)
    is_wrong = answers != hold_labels[:, None]
    errors = is_wrong.float().mean(0)

    frequencies = learn_labels.bincount()
    most_frequent = frequencies.argmax()
    is_other = hold_labels != most_frequent
    chance = is_other.float().mean()
    return errors.tolist(), float(chance)


def character_errors(
    examples: Examples, encoder: Encoder, read_frames: ReadFrames, seed: int, only_mix: bool
) -> tuple[list[float], float]:
    """Read characters frame by frame: one linear layer and CTC, decoded greedily.

    Returns:
        errors: of each head, the character error rate on the held-out recordings.
        chance: 1, the error of reading nothing.
    """
    learned_texts = examples.labels[: examples.train]
    tokenizer = train_tokenizer("chars", learned_texts)
    assert isinstance(tokenizer, CharTokenizer)

    # A long frame gets several outputs in time: fast speech has several letters in it.
    config = encoder.config
    seconds_per_frame = config.samples_per_frame / config.features.sample_rate_hz
    outputs_per_frame = round(seconds_per_frame / _OUTPUT_S)
    per_frame = max(1, outputs_per_frame)

    features = frames_of_recordings(examples.dataset, encoder, read_frames, pool=False)
    features = _normalised(features, examples.train)
    reader = _CharacterReader(features, tokenizer, per_frame, only_mix)
    reader.learn(learned_texts, seed)

    # The scorer wants names of utterances: their positions.
    held_out = list(range(examples.train, len(features)))
    names = [str(position) for position in held_out]
    held_out_texts = examples.labels[examples.train :]
    references = dict(zip(names, held_out_texts, strict=True))

    errors: list[float] = []
    for texts in reader.read(held_out):
        hypotheses = dict(zip(names, texts, strict=True))
        result = score(references, hypotheses)
        errors.append(result.cer)
    return errors, 1.0


class _Heads(nn.Module):
    """A linear head for each of L layers and one for their mix, side by side.

    The mix weighs the layers by a softmax that is learned with the heads.
    """

    def __init__(self, layers: int, width: int, outputs: int, only_mix: bool) -> None:
        super().__init__()
        num_heads = 1 if only_mix else layers + 1

        # Zeros rather than a draw: linear heads have no symmetry to break.
        weight = torch.zeros(num_heads, width, outputs)
        bias = torch.zeros(num_heads, outputs)
        mix = torch.zeros(layers)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.mix = nn.Parameter(mix)

    @property
    def count(self) -> int:
        """Number of heads, H."""
        return len(self.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(N, L, D) -> (N, H, C)."""
        shares = self.mix.softmax(0)
        mixed = torch.einsum("nld,l->nd", features, shares)[:, None]

        inputs = mixed
        if self.count > 1:
            inputs = torch.cat([features, mixed], 1)  # (N, H, D)

        products = torch.einsum("nld,ldc->nlc", inputs, self.weight)
        return products + self.bias


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
        squared_weights = heads.weight.square().sum()
        penalty = _WEIGHT_DECAY * squared_weights / 2
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
    learned = [own.float() for own in features[:train]]
    joined = torch.cat(learned, 1)
    mean = joined.mean(1, keepdim=True)
    std = joined.std(1, keepdim=True) + _STD_EPS

    normalised: list[Tensor] = []
    for own in features:
        centred = own.float() - mean
        normalised.append(centred / std)
    return normalised


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
        num_outputs = per_frame * tokenizer.size
        self.heads = _Heads(num_layers, width, num_outputs, only_mix)

    def learn(self, texts: Sequence[str], seed: int) -> None:
        """Train on the first recordings, those of ``texts``.

        loss = sum of the CTC losses over heads and utterances / number of characters
        """
        tokens: list[Tensor] = []
        usable: list[int] = []
        for position, text in enumerate(texts):
            own = torch.tensor(self.tokenizer.encode(text))
            tokens.append(own)
            if self._has_room(position, own):
                usable.append(position)
        size = min(_CTC_BATCH, len(usable))

        optimizer = torch.optim.Adam(self.heads.parameters(), lr=_LR)
        rng = generator("probe", seed)

        for update in range(UPDATES):
            share_left = 1 - update / UPDATES
            for group in optimizer.param_groups:
                group["lr"] = _LR * share_left
            optimizer.zero_grad()

            chosen = rng.choice(usable, size, replace=False).tolist()
            log_probs, num_outputs = self._log_probs(chosen)

            own_tokens = [tokens[position] for position in chosen]
            lengths = [len(own) for own in own_tokens]
            num_characters = sum(lengths)

            # Every head has the same targets.
            targets = torch.cat(own_tokens * self.heads.count)
            target_lengths = torch.tensor(lengths * self.heads.count)

            total = F.ctc_loss(
                log_probs.transpose(0, 1), targets, num_outputs, target_lengths, reduction="sum"
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
            end = start + _CTC_BATCH
            chosen = positions[start:end]
            num_chosen = len(chosen)

            log_probs, num_outputs = self._log_probs(chosen)
            ids_of_rows = greedy(log_probs, num_outputs, self.tokenizer.blank_id)

            # All utterances of the first head stand first.
            for row, ids in enumerate(ids_of_rows):
                head = row // num_chosen
                text = self.tokenizer.decode(ids)
                texts[head].append(text)

        return texts

    def _has_room(self, position: int, tokens: Tensor) -> bool:
        """Tell whether a recording has outputs enough for its tokens: else its loss is infinite."""
        _, num_frames, _ = self.features[position].shape
        num_outputs = num_frames * self.per_frame
        needed = min_ctc_frames(tokens.tolist())
        return num_outputs >= max(1, needed)

    def _log_probs(self, chosen: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Compute the outputs of every head for some recordings.

        Returns:
            log_probs: (H B, n T, V), all utterances of the first head first.
            num_outputs: (H B,) int64, valid outputs.
        """
        frames = [self.features[position].transpose(0, 1) for position in chosen]
        padded = nn.utils.rnn.pad_sequence(frames, batch_first=True)  # (B, T, L, D)

        # The heads know no time: frames of all utterances are rows of one batch.
        batch, length, _, _ = padded.shape
        rows = padded.flatten(0, 1)  # (B T, L, D)
        logits = self.heads(rows)  # (B T, H, n V)

        logits = logits.unflatten(0, (batch, length))
        logits = logits.unflatten(-1, (self.per_frame, self.tokenizer.size))
        logits = logits.permute(2, 0, 1, 3, 4)  # (H, B, T, n, V)
        logits = logits.flatten(2, 3)  # the n outputs of a frame follow each other in time
        logits = logits.flatten(0, 1)

        lengths = [len(own) * self.per_frame for own in frames]
        num_outputs = torch.tensor(lengths)
        return logits.log_softmax(-1), num_outputs.repeat(self.heads.count)
