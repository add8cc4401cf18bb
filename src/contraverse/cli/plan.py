"""``contraverse plan``: cost, memory and hours of a training, before it is started."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from contraverse.cli.console import doing, print_text, quiet
from contraverse.recipes import configure, parse

if TYPE_CHECKING:
    from contraverse.planning import Plan
    from contraverse.planning.plan import Layout


def plan(
    recipe: Annotated[str, typer.Argument(help="Recipe or method: contraverse list recipes, list methods.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="bert-base, modernbert-large, mistral-7b, resnet18, resnet50, vit-b, minilm, a backbone, or a folder "
            "with a config.json; the Hub is not asked."
        ),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Task of the data: contraverse list tasks.")] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Plan the paper's experiment on --task.")] = False,
    devices: Annotated[int, typer.Option(help="Number of devices, all alike.")] = 1,
    memory: Annotated[str | None, typer.Option(help="Memory of one device, for example 80GB.")] = None,
    rate: Annotated[
        float, typer.Option(help="TFLOP a second that a device sustains: a third to a half of its peak.")
    ] = 100.0,
    rows: Annotated[int | None, typer.Option(min=1, help="Training rows, for hours and memory banks.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting of train, for example train.bf16=true."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list with an object for each stage.")] = False,
) -> None:
    """Print what a training would cost: arithmetic, memory, network, the batch that fits, hours, what to switch on.

    Nothing is loaded but the model's shape: no weights, no rows, no network.
    """
    flags = {"model.name": model, "task": task, "paper": paper or None}
    settings = {name: value for name, value in flags.items() if value is not None} | parse(set_ or [])
    with doing("Loading PyTorch…"):
        quiet()
        from contraverse.planning import Resources, parse_memory
        from contraverse.planning import plan as make_plan
    resources = Resources(devices, None if memory is None else parse_memory(memory), rate * 1e12)
    config = configure(recipe, settings=settings)
    with doing("Measuring a forward pass…"):
        plans = make_plan(config, resources, rows=rows)
    if as_json:
        print_text(json.dumps([_object(stage) for stage in plans], indent=2))
        return
    print_text("\n\n".join("\n".join(_lines(stage)) for stage in plans))


def _object(plan: "Plan") -> dict[str, Any]:
    training, devices = plan.training, plan.resources.devices
    layout = plan.layout
    return {
        "method": plan.config.method.name,
        "model": plan.model,
        "devices": devices,
        "rows_of_a_device": plan.share,
        "flops_of_a_step": training.flops(plan.share * devices),
        "bytes": {
            "weights": training.weights,
            "gradients": training.gradients,
            "optimizer": training.optimizer,
            "method": training.method,
            "activations": training.activations(plan.share / plan.accumulated),
            "reduced": training.reduced(devices),
            "gathered": training.gathered_bytes(plan.share, devices),
        },
        "rows_that_fit": {layout.name: most for layout, most in plan.fits.items()} if plan.resources.memory else {},
        "switch_on": None if layout is None else _switches(plan, layout),
        "steps_a_second": plan.steps_a_second if plan.training.units else None,
        "steps": plan.steps,
        "hours": plan.hours,
    }


def _lines(plan: "Plan") -> list[str]:
    from contraverse.planning.tables import written_flops, written_size

    training, devices, forward = plan.training, plan.resources.devices, plan.training.forward
    bf16 = plan.config.train.arguments.get("bf16")
    unit = "pixels" if plan.config.method.name and hasattr(plan.config.data, "views") else "tokens"
    length = f"{forward.length} x {forward.length} {unit}" if unit == "pixels" else f"{forward.length} {unit}"
    checkpointed = "" if forward.recomputed is None else written_size(training.activations(1, recompute=True))
    arithmetic = written_flops(training.flops(plan.share))
    held = training.activations(plan.share / plan.accumulated)
    lines = [
        f"training     {plan.config.method.name} on {plan.model}, {plan.config.task}, {'bf16' if bf16 else 'fp32'}",
        f"forward F    {written_flops(forward.flops)} a row of {length}; a step is {training.units:g}F",
        f"devices      {devices}, {plan.share} rows each in a step: {arithmetic} a device",
        f"weights      {training.trained:,} trained: {written_size(training.weights)}, "
        f"gradients {written_size(training.gradients)}, optimizer {written_size(training.optimizer)}"
        + (f", the method's own {written_size(training.method)}" * (training.method > 0)),
        f"activations  {written_size(training.activations(1))} a row ({training.graphs} graphs held at once)"
        + (f", {checkpointed} with checkpointing" if checkpointed else ""),
        f"memory       {written_size(training.fixed(devices) + held)} a device at the peak of a step",
    ]
    if devices > 1:
        lines.append(
            f"network      {written_size(training.reduced(devices))} all-reduced and "
            f"{written_size(training.gathered_bytes(plan.share, devices))} gathered in a step"
        )
    if plan.resources.memory is not None:
        lines += [
            f"rows at once {most:,} fit {written_size(plan.resources.memory)}, {layout.name}"
            for layout, most in plan.fits.items()
        ]
    lines.append(f"switch on    {_advice(plan)}")
    lines.append(
        f"speed        {plan.steps_a_second:.3g} steps a second at {plan.resources.rate / 1e12:g} TFLOP/s a device"
    )
    if plan.hours is not None:
        time = f"{plan.hours:.3g} hours" if plan.hours >= 1 else f"{60 * plan.hours:.3g} minutes"
        lines.append(f"time         {time} for {plan.steps:,} steps, without evaluation")
    else:
        lines.append("time         give --rows, the number of training rows")
    return lines


def _advice(plan: "Plan") -> str:
    if plan.resources.memory is None:
        return "give --memory, that of one device"
    if plan.layout is None:
        return "nothing helps: the weights alone do not fit; take more devices, more memory or a smaller model"
    switches = _switches(plan, plan.layout)
    if not switches:
        return "nothing: the batch fits"
    more = plan.factor(plan.layout)
    return "; ".join(switches) + (f" (at most {more:.2f} times the arithmetic)" if more > 1 else "")


def _switches(plan: "Plan", layout: "Layout") -> list[str]:
    """Settings that put ``layout`` into effect."""
    switches = []
    if layout.sharded:
        switches.append("train.fsdp=true")
    if layout.recompute:
        switches.append("train.gradient_checkpointing=true")
    if layout.at_once is not None:
        if plan.contrastive:
            switches.append(f"train.contrast_chunk={layout.at_once}")
        else:
            parts = next(
                k for k in range(1, plan.share + 1) if plan.share % k == 0 and plan.share // k <= layout.at_once
            )
            switches.append(f"train.gradient_accumulation_steps={parts}")
    return switches
