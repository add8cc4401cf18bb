"""The traps that others' code of this family fell into, and the test that catches each here.

T1  the word embeddings go through position and layer norm twice (SMART, RobustEmbed)
    tests/models/test_text_model.py::test_a_zero_perturbation_is_the_plain_forward
    tests/methods/test_freelb.py::test_with_delta_zero_the_logits_are_the_clean_ones
T2  one norm for a token, a sequence or the batch, and nobody says which
    tests/attacks/test_gradient.py::test_a_row_alone_gets_the_same_perturbation
    tests/methods/test_freelb.py::test_a_row_is_perturbed_alike_alone_and_in_a_batch
T3  padding is perturbed, or changes the loss
    tests/attacks/test_balls.py::test_what_stands_on_padding_is_removed
    tests/methods/test_contract.py::test_more_padding_changes_nothing
    tests/methods/test_freelb.py::test_padding_is_never_perturbed
T4  K is the number of passes in one code and of ascents in another
    tests/methods/test_freelb.py::test_passes_and_ascents_are_counted_as_the_convention_says
T5  perturbations add up in the input (CreAT)
    tests/models/test_text_model.py::test_the_encoder_gets_the_current_perturbation_and_no_other
    tests/methods/test_freelb.py::test_what_the_encoder_is_given_is_the_words_and_the_current_delta
T6  an epsilon of 0 means no limit, and the start is not projected (FreeLB)
    tests/methods/test_freelb.py::test_no_limit_is_none_and_never_zero
    tests/methods/test_freelb.py::test_the_start_is_projected_too
T7  views are paired with those of another sentence (RobustEmbed)
    tests/functional/test_contrastive.py::test_anchors_are_paired_with_their_own_row
    tests/methods/test_contract.py::test_rows_may_be_permuted
T8  one sample's scale is used for all rows (RobustEmbed)
    tests/methods/test_contract.py::test_rows_may_be_permuted
T9  an attack leaves gradients on the weights
    tests/methods/test_contract.py::test_only_the_driver_back_propagates
    tests/methods/test_freelb.py::test_parameters_get_the_gradients_of_the_losses_and_nothing_else
T10 views share a dropout mask that ought to differ, or passes have masks of their own that ought to be shared
    tests/methods/test_equations.py::test_dropout_makes_the_views
    tests/methods/test_freelb.py::test_all_passes_of_a_step_share_their_dropout_masks
T11 the normaliser Z comes from a bank that is not filled, or is lost on resume (CRD)
    tests/methods/test_carl.py::test_the_normaliser_is_set_once_banks_are_full
    tests/methods/test_carl.py::test_a_run_resumes_with_its_banks_normaliser_and_draws
    tests/methods/test_carl_equations.py::test_steps_are_equations_2_to_6
    tests/methods/test_carl_equations.py::test_both_estimators_are_the_loops
T12 negatives of the anchor's own label, or the bank's row of another sentence
    tests/methods/test_carl_equations.py::test_negatives_have_another_label_and_are_drawn_alike
    tests/methods/test_traps.py::test_a_row_keeps_its_number
    tests/methods/test_splitting.py::test_two_ranks_equal_one_process
T13 a bank that is updated before it is scored, not of norm 1, differentiated, or that keeps the last of two at random
    tests/methods/test_carl_equations.py::test_a_bank_is_updated_by_equation_5
    tests/methods/test_carl_equations.py::test_scores_let_gradients_to_the_anchors_alone
    tests/methods/test_carl_equations.py::test_steps_are_equations_2_to_6
T14 a contrastive loss without its positive in the denominator
    tests/functional/test_contrastive.py::test_info_nce_is_never_negative
    tests/reference/test_references.py::test_only_the_printed_softmax_can_be_negative
T15 the pooler of training is lost, or kept, on the way to another library
    tests/models/test_storage.py::test_the_pooler_is_dropped_or_kept_everywhere_alike
T16 the aggregates of STS and ANLI are mixed up
    tests/evaluation/test_sts.py::test_the_three_aggregates_differ_as_computed_by_hand
    tests/evaluation/test_nli.py::test_the_pooled_figures_of_the_papers_rounds
T17 mixed precision: a gradient that is not finite, or is unscaled twice
    tests/methods/test_contract.py::test_bfloat16_autocast_keeps_the_gradient
    tests/methods/test_contract.py::test_a_loss_scale_changes_neither_the_attack_nor_the_direction
    tests/methods/test_contract.py::test_what_is_not_finite_is_counted_and_not_added
    tests/methods/test_half_precision.py::test_a_fitted_row_is_attacked_as_in_single_precision
T18 ranks see other candidates than one process, or reduce at every pass
    tests/methods/test_splitting.py::test_two_ranks_equal_one_process
    tests/training/test_step.py::test_no_sync_covers_forward_and_backward_of_all_passes_but_the_last
T19 layers[-0] is the first layer (BERT-flow, BERT-whitening)
    tests/models/test_text_model.py::test_none_of_the_layers_drawn_anew_is_none_of_them
T20 the same epsilon is another share of the embedding in another encoder
    tests/methods/test_contract.py::test_an_attack_is_logged
T21 RAR reconstructs padding, or with a decoder of its own
    tests/methods/test_rar.py::test_the_loss_is_the_cross_entropy_of_the_real_tokens
    tests/methods/test_rar.py::test_the_decoder_stays_tied
    tests/methods/test_rar.py::test_the_paper_counts_its_parameters
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from reference.tiny import rows
from reference.traps import assert_it_says_something, names, table
from torch import Tensor, nn

from contraverse.data import EncodedText
from contraverse.models import TextModel
from contraverse.training import Trainer
from contraverse.types import Batch, Loss, Method


def test_every_trap_has_a_test() -> None:
    found = table(__doc__)
    assert list(found) == [f"T{i}" for i in range(1, 22)]
    assert all(found.values())


@pytest.mark.parametrize("named", names(__doc__))
def test_the_tests_that_are_named_exist(named: str) -> None:
    assert_it_says_something(named)


# T12


class Probe(Method):
    """Notes which rows it was given, and under which numbers."""

    name, summary, paper, equation, requires, cost = "probe", "a test", "none", "none", "labels", "3F"

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, list[int]]] = []

    def losses(self, model: nn.Module, batch: Batch) -> Iterator[Loss]:
        for i, ids, mask in zip(batch["index"], batch["input_ids"], batch["attention_mask"], strict=True):
            self.seen.append((int(i), ids[mask.bool()].tolist()))
        loss: Tensor = model(batch).logits.square().mean()
        yield Loss(loss, {"loss": loss.detach()})


@pytest.mark.parametrize(
    "settings",
    [
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "random"},
        {"gradient_accumulation_steps": 2},
        {"dataloader_num_workers": 1},
    ],
    ids=lambda s: ",".join(f"{k}={v}" for k, v in s.items()),
)
def test_a_row_keeps_its_number(settings: Any, tiny_model: Callable[..., TextModel], tmp_path: Path) -> None:
    """T12: shuffled, grouped by length, accumulated or read by a worker; a memory bank is addressed by it."""
    model, data, probe = tiny_model(), rows(20), Probe()
    Trainer(
        model, probe, data, output_dir=tmp_path, num_train_epochs=2, per_device_train_batch_size=4, use_cpu=True,
        save_strategy="no", report_to="none", disable_tqdm=True, **settings,
    ).train()  # fmt: skip
    encoded = EncodedText(data, model.tokenizer, model.max_length)
    assert sorted(i for i, _ in probe.seen) == sorted([*range(20)] * 2)
    assert [i for i, _ in probe.seen] != [*range(20)] * 2
    assert all(ids == list(encoded[i]["input_ids"]) for i, ids in probe.seen)
