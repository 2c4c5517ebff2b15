"""Silent hidden units drawn anew during training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from efvae.text.model import TextVAE

__all__ = ["recycle"]


@torch.no_grad()
def recycle(
    model: TextVAE,
    optimizer: torch.optim.Adam,
    silent: Mapping[str, Tensor],
    generator: torch.Generator | None = None,
    *,
    by_he: bool = False,
) -> int:
    """Begin silent units anew, in place, with no effect on what the network computes now (Sokar et al., 2023).

    For each such unit::

        weights and bias into it   U(±1/√fan-in), the law of torch's linear layers, or
                                   N(0, 2 / fan-in) and zero, see efvae.text.model.TextVAE.begin_by_he
        weights out of it          0
        Adam's first moments of all these     0
        Adam's second moments      median over the units of the layer that are not silent, weight by weight

    With second moments of zero the first steps would be three to six times those of other weights, and most of the
    units would be silent again after an epoch. "No effect" holds for the documents and codes that ``silent`` is about:
    a unit that one of a hundred codes would wake is lost.

    Args:
        model: its hidden units are ReLUs; a leaky unit gives something while it is silent, which would be lost.
        optimizer: of the model.
        silent: which units of each layer, from :meth:`~efvae.text.model.TextVAE.silent`.
        generator: source of the new weights.
        by_he: the second of these laws.

    Returns:
        How many there were.

    Own: own-text-slope
    """
    for name, (into, bias, out) in _layers(model).items():
        which = silent[name]
        bound = into.shape[1] ** -0.5
        for rows, he in ((into, 2**0.5 * bound), (bias, 0.0)):
            new = torch.empty(rows[which].shape, device=rows.device)
            if by_he:
                new.normal_(0, he, generator=generator)
            else:
                new.uniform_(-bound, bound, generator=generator)
            rows[which] = new
        out[:, which] = 0
    for moment in ("exp_avg", "exp_avg_sq"):
        known = {weights: state[moment] for weights, state in optimizer.state.items()}
        for name, (into, bias, out) in _layers(model, known).items():
            for rows in (into, bias, out.t()):
                _replace(rows, silent[name], by_median=moment == "exp_avg_sq")
    return sum(int(which.sum()) for which in silent.values())


def _replace(rows: Tensor, which: Tensor, *, by_median: bool) -> None:
    others = rows[~which]
    rows[which] = others.median(0).values if by_median and len(others) else torch.zeros_like(rows[0])


def _layers(model: TextVAE, of: Mapping[Tensor, Tensor] | None = None) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Weights into the units of each hidden layer, one row for each unit, their biases, and the weights out of them.

    Args:
        model: whose weights.
        of: what stands in the place of each weight, such as its moments, which there are none of before the first
            step; None: the weights themselves.
    """

    def get(weights: Tensor) -> Tensor:
        return weights if of is None else of.get(weights, torch.empty_like(weights))

    encoder, decoder = (
        [part for part in net.modules() if isinstance(part, nn.Linear)] for net in (model.code_net, model.hidden_net)
    )
    layers = {}
    if encoder:  # its first layer reads words
        layers["encoder_1"] = get(model.reader).t(), get(model.reader_bias), get(encoder[0].weight)
    for name, net, last in (("encoder", encoder, None), ("decoder", decoder, model.writer)):
        after = [*(layer.weight for layer in net[1:]), *([] if last is None else [last])]
        first = 2 if name == "encoder" else 1
        for number, (layer, out) in enumerate(zip(net, after, strict=False), first):
            layers[f"{name}_{number}"] = get(layer.weight), get(layer.bias), get(out)
    return layers
