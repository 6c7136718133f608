"""Preferences between two clips, from how well each is denoised.

All errors are means over elements of ``|velocity - target|^2`` at one sigma and one noise that winner and loser share;
with separate noises the margin would mostly measure the noise.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from reelign.core.transition import Strength


def margin(
    policy_w: Float[Tensor, " b"],
    policy_l: Float[Tensor, " b"],
    reference_w: Float[Tensor, " b"],
    reference_l: Float[Tensor, " b"],
    beta: Strength,
) -> Float[Tensor, " b"]:
    """How much more the policy prefers the winner than its reference does, in logits.

    ``-beta / 2 ((policy_w - reference_w) - (policy_l - reference_l))``; 0 when the policy is the reference.
    """
    return -beta / 2 * ((policy_w - reference_w) - (policy_l - reference_l))


def flow_dpo(
    policy_w: Float[Tensor, " b"],
    policy_l: Float[Tensor, " b"],
    reference_w: Float[Tensor, " b"],
    reference_l: Float[Tensor, " b"],
    beta: Strength,
) -> Float[Tensor, " b"]:
    """Direct preference optimisation on denoising errors (arXiv 2311.12908, 2501.13918): ``-log sigmoid(margin)``.

    Args:
        policy_w: error of the policy on the winner.
        policy_l: error of the policy on the loser.
        reference_w: error of the frozen reference on the winner.
        reference_l: error of the frozen reference on the loser.
        beta: strength for errors that are means over elements, hundreds to thousands; a tensor holds one per pair,
            e.g. beta times a weight over noise levels.

    Returns:
        ``[b]``, ln 2 when the policy is the reference.
    """
    return -functional.logsigmoid(margin(policy_w, policy_l, reference_w, reference_l, beta))


def kappa(inside: Float[Tensor, " b"], beta: Strength) -> Float[Tensor, " b"]:
    """Derivative of `flow_dpo` with respect to ``policy_w``; that with respect to ``policy_l`` is its negative.

    With it the two branches can be differentiated one after the other: the gradient of
    ``kappa policy_w - kappa policy_l`` at constant kappa is that of the loss.

    Args:
        inside: from `margin`, without gradient.
        beta: as in `flow_dpo`.

    Returns:
        ``beta / 2 sigmoid(-inside)``; ``beta / 4`` when the policy is the reference.
    """
    return beta / 2 * functional.sigmoid(-inside)
