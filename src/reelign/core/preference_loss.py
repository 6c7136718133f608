"""Preferences between two clips, from how well each is denoised.

All errors are means over elements of ``|velocity - target|^2`` at one sigma and one noise that winner and loser share;
with separate noises the margin would mostly measure the noise. ``policy_w`` is that of the policy on the winner,
``reference_l`` that of the frozen reference on the loser.
"""

from torch.nn import functional

from reelign.core.flow import Each
from reelign.core.transition import Strength


def margin(policy_w: Each, policy_l: Each, reference_w: Each, reference_l: Each, beta: Strength) -> Each:
    """How much more the policy prefers the winner than its reference does, in logits.

    ``-beta / 2 ((policy_w - reference_w) - (policy_l - reference_l))``; 0 when the policy is the reference.
    """
    return -beta / 2 * ((policy_w - reference_w) - (policy_l - reference_l))


def flow_dpo(policy_w: Each, policy_l: Each, reference_w: Each, reference_l: Each, beta: Strength) -> Each:
    """Direct preference optimisation on denoising errors (arXiv 2311.12908, 2501.13918): ``-log sigmoid(margin)``.

    ``beta`` is a strength for errors that are means over elements, hundreds to thousands; a tensor holds one per pair,
    e.g. beta times a weight over noise levels. The loss is ln 2 when the policy is the reference.
    """
    return -functional.logsigmoid(margin(policy_w, policy_l, reference_w, reference_l, beta))


def kappa(inside: Each, beta: Strength) -> Each:
    """Derivative of `flow_dpo` with respect to ``policy_w``; that with respect to ``policy_l`` is its negative.

    With it the two branches can be differentiated one after the other: the gradient of
    ``kappa policy_w - kappa policy_l`` at constant kappa is that of the loss. It is ``beta / 2 sigmoid(-inside)``, with
    ``inside`` from `margin`, without gradient: ``beta / 4`` when the policy is the reference.
    """
    return beta / 2 * functional.sigmoid(-inside)
