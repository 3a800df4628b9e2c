"""Training of a judge: one small network, one loss, minutes on one core."""

from collections.abc import Callable

from torch import Tensor, nn

from safelight.train.optim import OPTIMISERS, OptimConfig, lr_at


def fit(
    module: nn.Module,
    loss_at: Callable[[int], Tensor],
    config: OptimConfig,
    *,
    steps: int,
    on_step: Callable[[int, float], None] | None = None,
) -> None:
    """Minimises `loss_at(step)` over the module's trainable parameters, in float32.

    Of the configuration count the optimiser, its learning rate and its clipping. `on_step(step,
    loss)` is called after every step. The module is left in evaluation mode.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = OPTIMISERS[config.optimizer](parameters, config)
    module.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr_at(config, step, steps)
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if config.clip:
            nn.utils.clip_grad_norm_(parameters, config.clip)
        optimizer.step()
        if on_step is not None:
            on_step(step, float(loss.detach()))
    module.eval()
