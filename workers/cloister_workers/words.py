# SPDX-License-Identifier: Apache-2.0
"""The closed enumerations of the protocol between agent and trainer: all the words that a trainer can say."""

from __future__ import annotations

from enum import StrEnum


class DatasetRole(StrEnum):
    """Which input a message speaks of; also the key of a descriptor in `Start.inputs`."""

    TRAINING = "training"
    VALIDATION = "validation"
    EVALUATION = "evaluation"
    REPLAY = "replay"
    CHECKPOINT = "checkpoint"  # in Start.inputs only
    # In Start.inputs only: the layers of an adapted version to start from, in order, each as a bundle of its files.
    LAYER = "layer"
    LAYER_2 = "layer_2"
    LAYER_3 = "layer_3"
    AUXILIARY_LAYER = "auxiliary_layer"  # in Start.inputs only: the layer of the second model's version


class Stage(StrEnum):
    """The parts of a job, in this order; `evaluate` comes twice, before and after `train`."""

    VALIDATE = "validate"
    TRAIN = "train"
    EVALUATE = "evaluate"
    MITIGATE = "mitigate"  # de-biasing, in place of train
    JUDGE = "judge"  # de-biasing: statistics and gate
    INDEX = "index"  # retrieval: chunks and their vectors
    SELECT = "select"  # in-context learning: which examples are shown
    INFER = "infer"  # answers to rows
    EXPORT = "export"


class StageStatus(StrEnum):
    """Where a stage stands."""

    STARTED = "started"
    FINISHED = "finished"


class EvaluationPhase(StrEnum):
    """When an evaluation ran: before and after on the evaluation part, during on the validation part; of an evaluation
    job, with some of the version's layers.
    """

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"
    LAYERS = "layers"


class RowReason(StrEnum):
    """Why a row is refused."""

    BAD_UTF8 = "BAD_UTF8"
    TOO_LARGE = "TOO_LARGE"  # the line is longer than rows.MAX_LINE bytes
    NOT_JSON = "NOT_JSON"
    NOT_AN_OBJECT = "NOT_AN_OBJECT"
    MISSING_KEY = "MISSING_KEY"
    WRONG_TYPE = "WRONG_TYPE"
    EMPTY_TEXT = "EMPTY_TEXT"
    INVALID_TEXT = "INVALID_TEXT"  # unpaired surrogates: no UTF-8 form
    UNKNOWN_LABEL = "UNKNOWN_LABEL"  # validation or evaluation label that training never has
    UNKNOWN_ROLE = "UNKNOWN_ROLE"
    NO_COMPLETION = "NO_COMPLETION"  # nothing to learn from: no assistant text
    TEMPLATE_REFUSED = "TEMPLATE_REFUSED"  # the tokenizer's chat template does not take this row
    TOO_LONG = "TOO_LONG"  # more than max_seq_length tokens
    DUPLICATE = "DUPLICATE"  # only under data.reject_duplicates
    LENGTH_MISMATCH = "LENGTH_MISMATCH"  # two lists that go together have different lengths, e.g. tokens and tags
    BAD_TAG = "BAD_TAG"  # a tag that is neither O nor B-type nor I-type
    ANSWER_NOT_FOUND = "ANSWER_NOT_FOUND"  # an extractive answer that does not stand in its context
    NOTHING_PREFERRED = "NOTHING_PREFERRED"  # chosen and rejected are the same
    BAD_CHECK = "BAD_CHECK"  # what a reward is checked by is no expression or schema that can be used
    NO_WORD = "NO_WORD"  # de-biasing: a list of an association test has sentences whose word cannot be told
    UNKNOWN_KIND = "UNKNOWN_KIND"  # de-biasing: the row's `kind` is none that is known


class MetricName(StrEnum):
    """Every metric a trainer may report."""

    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    GRAD_NORM = "grad_norm"
    TOKENS_PER_SECOND = "tokens_per_second"
    EVAL_LOSS = "eval_loss"
    EVAL_ROWS = "eval_rows"
    EVAL_ACCURACY = "eval_accuracy"
    EVAL_ACCURACY_CI_LOW = "eval_accuracy_ci_low"
    EVAL_ACCURACY_CI_HIGH = "eval_accuracy_ci_high"
    EVAL_MACRO_F1 = "eval_macro_f1"
    EVAL_MACRO_F1_CI_LOW = "eval_macro_f1_ci_low"
    EVAL_MACRO_F1_CI_HIGH = "eval_macro_f1_ci_high"
    EVAL_PERPLEXITY = "eval_perplexity"
    EVAL_TOKEN_ACCURACY = "eval_token_accuracy"  # noqa: S105 - the name of a metric
    EVAL_TOKEN_ACCURACY_CI_LOW = "eval_token_accuracy_ci_low"  # noqa: S105 - the name of a metric
    EVAL_TOKEN_ACCURACY_CI_HIGH = "eval_token_accuracy_ci_high"  # noqa: S105 - the name of a metric
    EVAL_CALIBRATION_ERROR = "eval_calibration_error"  # expected calibration error, 0 to 1
    EVAL_MICRO_F1 = "eval_micro_f1"
    EVAL_MICRO_F1_CI_LOW = "eval_micro_f1_ci_low"
    EVAL_MICRO_F1_CI_HIGH = "eval_micro_f1_ci_high"
    EVAL_RMSE = "eval_rmse"
    EVAL_RMSE_CI_LOW = "eval_rmse_ci_low"
    EVAL_RMSE_CI_HIGH = "eval_rmse_ci_high"
    EVAL_PEARSON = "eval_pearson"
    EVAL_PEARSON_CI_LOW = "eval_pearson_ci_low"
    EVAL_PEARSON_CI_HIGH = "eval_pearson_ci_high"
    EVAL_SPEARMAN = "eval_spearman"
    EVAL_SPEARMAN_CI_LOW = "eval_spearman_ci_low"
    EVAL_SPEARMAN_CI_HIGH = "eval_spearman_ci_high"
    EVAL_PRECISION = "eval_precision"  # of entities
    EVAL_PRECISION_CI_LOW = "eval_precision_ci_low"
    EVAL_PRECISION_CI_HIGH = "eval_precision_ci_high"
    EVAL_RECALL = "eval_recall"
    EVAL_RECALL_CI_LOW = "eval_recall_ci_low"
    EVAL_RECALL_CI_HIGH = "eval_recall_ci_high"
    EVAL_F1 = "eval_f1"  # of entities, or of the words of an answer
    EVAL_F1_CI_LOW = "eval_f1_ci_low"
    EVAL_F1_CI_HIGH = "eval_f1_ci_high"
    EVAL_EXACT_MATCH = "eval_exact_match"
    EVAL_EXACT_MATCH_CI_LOW = "eval_exact_match_ci_low"
    EVAL_EXACT_MATCH_CI_HIGH = "eval_exact_match_ci_high"
    EVAL_CHRF = "eval_chrf"
    EVAL_CHRF_CI_LOW = "eval_chrf_ci_low"
    EVAL_CHRF_CI_HIGH = "eval_chrf_ci_high"
    EVAL_BLEU = "eval_bleu"
    EVAL_BLEU_CI_LOW = "eval_bleu_ci_low"
    EVAL_BLEU_CI_HIGH = "eval_bleu_ci_high"
    EVAL_ROUGE_L = "eval_rouge_l"
    EVAL_ROUGE_L_CI_LOW = "eval_rouge_l_ci_low"
    EVAL_ROUGE_L_CI_HIGH = "eval_rouge_l_ci_high"
    EVAL_MARGIN = "eval_margin"  # mean difference of rewards or scores, chosen minus rejected
    EVAL_KL = "eval_kl"  # divergence from the teacher, nats a token
    REWARD = "reward"  # of a step's answers in reinforcement, mean
    EVAL_REWARD = "eval_reward"
    EVAL_REWARD_CI_LOW = "eval_reward_ci_low"
    EVAL_REWARD_CI_HIGH = "eval_reward_ci_high"
    EVAL_RECALL_AT_1 = "eval_recall_at_1"
    EVAL_RECALL_AT_1_CI_LOW = "eval_recall_at_1_ci_low"
    EVAL_RECALL_AT_1_CI_HIGH = "eval_recall_at_1_ci_high"
    EVAL_RECALL_AT_K = "eval_recall_at_k"
    EVAL_RECALL_AT_K_CI_LOW = "eval_recall_at_k_ci_low"
    EVAL_RECALL_AT_K_CI_HIGH = "eval_recall_at_k_ci_high"
    EVAL_MRR = "eval_mrr"
    EVAL_MRR_CI_LOW = "eval_mrr_ci_low"
    EVAL_MRR_CI_HIGH = "eval_mrr_ci_high"
    EVAL_LOSS_CI_LOW = "eval_loss_ci_low"
    EVAL_LOSS_CI_HIGH = "eval_loss_ci_high"
    REPLAY_LOSS = "replay_loss"  # on held-out rows of the replay dataset
    REPLAY_ROWS = "replay_rows"
    REPLAY_ACCURACY = "replay_accuracy"
    REPLAY_PERPLEXITY = "replay_perplexity"
    FORGETTING = "forgetting"  # replay_loss after minus before
    MICRO_BATCH_SIZE = "micro_batch_size"  # as found on the host
    CHUNKS = "chunks"  # of a retrieval index
    SHOTS = "shots"  # demonstrations of a prompt
    DEBIAS_VERDICT = "debias_verdict"  # 1 PASS, 0 INCONCLUSIVE, -1 FAIL


class FailureCode(StrEnum):
    """Why a job failed."""

    SPEC_INVALID = "SPEC_INVALID"
    INPUT_UNREADABLE = "INPUT_UNREADABLE"
    ROWS_INVALID = "ROWS_INVALID"
    TOO_FEW_ROWS = "TOO_FEW_ROWS"
    TOO_FEW_LABELS = "TOO_FEW_LABELS"
    MODEL_INVALID = "MODEL_INVALID"  # the directory does not load as the model that the method needs
    MODEL_UNSUPPORTED = "MODEL_UNSUPPORTED"  # it loads, but packing would change its results
    ADAPTER_INVALID = "ADAPTER_INVALID"  # e.g. no module has a target's name
    CHECKPOINT_INVALID = "CHECKPOINT_INVALID"
    NON_FINITE_LOSS = "NON_FINITE_LOSS"
    LIBRARY_MISSING = "LIBRARY_MISSING"  # a library, or the GPU that it needs, is not on this host
    MITIGATION_REFUSED = "MITIGATION_REFUSED"  # RefusalReason says why
    NOTHING_MEASURED = "NOTHING_MEASURED"  # no primary measure of the spec can be taken on this material
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    SCRATCH_FULL = "SCRATCH_FULL"
    PROTOCOL = "PROTOCOL"
    INTERNAL = "INTERNAL"


class FailureNumber(StrEnum):
    """Names of the numbers that explain a failure."""

    STEP = "step"
    ROW = "row"  # number of a row of the training file, from 1: the one that lost most at a step that went wrong
    ROWS = "rows"
    LABELS = "labels"
    TOTAL_ERRORS = "total_errors"


class RefusalReason(StrEnum):
    """Why a mitigation must not be used."""

    NONE = "NONE"  # another failure
    MODEL_KIND = "MODEL_KIND"  # the mitigation does not fit this kind of model
    PROTECTED_LABEL_LINK = "PROTECTED_LABEL_LINK"  # the group tells the label: erasing it would erase the task
    TOO_FEW_TERMS = "TOO_FEW_TERMS"  # a word list with fewer terms than MIN_TERMS
    TOO_FEW_ROWS = "TOO_FEW_ROWS"  # for what is fitted, e.g. fewer than 20 rows a dimension for LEACE
    NO_GROUPS = "NO_GROUPS"  # the rows do not say which group they speak of, or all say the same one
    NO_PAIRS = "NO_PAIRS"  # no row has a term of the axis that could be swapped
    NOT_ALLOWED = "NOT_ALLOWED"  # the mitigation is off unless the spec allows it
    NOT_LINEAR = "NOT_LINEAR"  # no linear step follows into which the map could be folded


class ModelNeed(StrEnum):
    """The kind of model that a method takes, where the job's model is of another."""

    NONE = "NONE"  # another failure
    CAUSAL = "CAUSAL"
    MASKED = "MASKED"
    ENCODER = "ENCODER"


class GateRule(StrEnum):
    """The rules of the release gate (docs/explanation/de-biasing.md)."""

    IMPROVEMENT = "improvement"
    LEVEL = "level"
    OVER_CORRECTION = "over_correction"
    HARM = "harm"
    UTILITY = "utility"
    EVIDENCE = "evidence"
    CHANGED = "changed"


class Verdict(StrEnum):
    """What a rule, or the whole gate, says."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class FigureKind(StrEnum):
    """What a figure of a de-biasing job is of; `index` counts in the list of that name in the signed spec."""

    MEASURE = "measure"
    UTILITY = "utility"
    JOB = "job"  # about the job as a whole


class FigureName(StrEnum):
    """The numbers of one figure: value and interval before, after, and of the paired change or loss."""

    BEFORE = "before"
    BEFORE_LOW = "before_low"
    BEFORE_HIGH = "before_high"
    AFTER = "after"
    AFTER_LOW = "after_low"
    AFTER_HIGH = "after_high"
    CHANGE = "change"
    CHANGE_LOW = "change_low"
    CHANGE_HIGH = "change_high"
    P = "p"
    P_HOLM = "p_holm"
    BAR = "bar"
    OVERLAP = "overlap"  # items that name a word or name that was at hand to mitigate with
    LEFT_OUT = "left_out"  # of the job: rows to fit on or choose by, left out because they name a test word
    CROSSING = "crossing"  # of the job: such rows that stayed, because too few would have been left


class ExceptionKind(StrEnum):
    """What an INTERNAL failure was; the nearest of these classes."""

    IMPORT_ERROR = "IMPORT_ERROR"
    OS_ERROR = "OS_ERROR"
    VALUE_ERROR = "VALUE_ERROR"
    TYPE_ERROR = "TYPE_ERROR"
    LOOKUP_ERROR = "LOOKUP_ERROR"
    ATTRIBUTE_ERROR = "ATTRIBUTE_ERROR"
    RUNTIME_ERROR = "RUNTIME_ERROR"
    OTHER = "OTHER"


class SpecField(StrEnum):
    """The field of the job spec that a SPEC_INVALID or ADAPTER_INVALID failure is about."""

    SPEC = "spec"  # the spec as a whole: an unknown or missing key, a wrong type
    SEED = "seed"
    EVALUATION_DATASET = "evaluation_dataset"
    # Of the rows; `data` is an unknown key among them.
    DATA = "data"
    VALIDATION_FRACTION = "validation_fraction"
    EVALUATION_FRACTION = "evaluation_fraction"
    REJECT_DUPLICATES = "reject_duplicates"
    MAX_ROWS = "max_rows"
    REPLAY_RATIO = "replay_ratio"
    REPLAY_SPLIT = "replay_split"
    TOO_LONG = "too_long"
    # Of a method, each under its own name; `method` is which one it is, or an unknown key among them.
    METHOD = "method"
    PROBLEM_TYPE = "problem_type"
    CLASS_WEIGHTS = "class_weights"
    METRICS = "metrics"
    MAX_NEW_TOKENS = "max_new_tokens"
    OBJECTIVE = "objective"
    INITIALISATION = "initialisation"
    TOKENIZER = "tokenizer"
    VOCABULARY_SIZE = "vocabulary_size"
    MASKING = "masking"
    FORM = "form"
    MAX_ANSWER_TOKENS = "max_answer_tokens"
    STRIDE = "stride"
    LOSS = "loss"
    BETA = "beta"
    SFT = "sft"
    MARGIN = "margin"
    LABEL_SMOOTHING = "label_smoothing"
    ALGORITHM = "algorithm"
    REWARD = "reward"
    GENERATIONS = "generations"
    TEMPERATURE = "temperature"
    DIRECTION = "direction"
    SHARE = "share"
    CHUNK_TOKENS = "chunk_tokens"
    OVERLAP = "overlap"
    TOP_K = "top_k"
    SELECTION = "selection"
    SHOTS = "shots"
    DRAWS = "draws"
    ADAPTER = "adapter"
    N_EPOCHS = "n_epochs"
    BATCH_SIZE = "batch_size"
    MICRO_BATCH_SIZE = "micro_batch_size"
    LEARNING_RATE = "learning_rate"
    LR_SCHEDULER_TYPE = "lr_scheduler_type"
    WARMUP_RATIO = "warmup_ratio"
    WEIGHT_DECAY = "weight_decay"
    MAX_GRAD_NORM = "max_grad_norm"
    MAX_SEQ_LENGTH = "max_seq_length"
    MAX_STEPS = "max_steps"
    N_EVALS = "n_evals"
    N_CHECKPOINTS = "n_checkpoints"
    EARLY_STOP_PATIENCE = "early_stop_patience"
    KEEP_BEST = "keep_best"
    AUXILIARY_MODEL = "auxiliary_model"
    REPLAY_DATASET = "replay_dataset"
    RANK = "rank"
    ALPHA = "alpha"
    DROPOUT = "dropout"
    TARGET_MODULES = "target_modules"
    RSLORA = "rslora"
    DORA = "dora"
    QUANTIZATION = "quantization"
    MERGE = "merge"
    TASK = "task"
    AXES = "axes"
    LANGUAGE = "language"
    MITIGATION = "mitigation"
    MEASURES = "measures"
    UTILITIES = "utilities"
    PRIMARY = "primary"
    BARS = "bars"
    SEEDS = "seeds"
