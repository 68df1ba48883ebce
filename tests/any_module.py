"""The table of any module: modules beside plain references of them, and what every public measure must say of each."""

import copy
import functools
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from unittest import mock

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from numerics import (
    ModuleCheckpoints,
    Samples,
    TorchModel,
    gauss_newton_influence,
    gaussian_learning_coefficient,
    gradient_kernel,
    hessian_influence,
    next_token_loss,
    tracin,
)

nn = torch.nn
EPS = np.finfo(float).eps
NATIVE = "float64 as it is"
CROSS_ENTROPY = functools.partial(nn.functional.cross_entropy, reduction="none")


# --- modules -------------------------------------------------------------------------------------------------------


class Last(nn.Module):
    """A recurrent or attention layer, and a linear map of its last or mean output."""

    def __init__(self, layer, width, read):
        super().__init__()
        self.layer, self.last, self.read = layer, nn.Linear(width, 3), read

    def forward(self, x):
        return self.last(self.read(self.layer, x))


class Tied(nn.Module):
    """One table that embeds and, transposed, gives the logits."""

    def __init__(self):
        super().__init__()
        self.table, self.mix = nn.Embedding(3, 4), nn.Linear(4, 4)

    def forward(self, x):
        return torch.tanh(self.mix(self.table(x).mean(1))) @ self.table.weight.T


class WrittenNorm(nn.Module):
    """The weight-normalised layer of the table, with the same parameters in the same order, by its formula."""

    def __init__(self, layers):
        super().__init__()
        first = layers[0]
        self.bias, self.g, self.v = first.bias, *first.parametrizations.weight.parameters()
        self.last = layers[2]

    def forward(self, x):
        return self.last(torch.tanh(x @ (self.g * self.v / self.v.square().sum(1, keepdim=True).sqrt()).T + self.bias))


class Made(nn.Module):
    """Makes tensors of the default dtype in its forward pass and writes into them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        hidden = torch.zeros(len(x), 3)
        hidden[:] = self.first(x)
        return self.last(torch.tanh(hidden * torch.tensor([1.0, 0.5, 0.25])))


class Written(Made):
    def forward(self, x):
        return self.last(torch.tanh(self.first(x) * torch.tensor([1.0, 0.5, 0.25], dtype=x.dtype)))


class Branches(nn.Module):
    """Python looks at a number of the sample."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x):
        hidden = torch.tanh(self.first(x))
        return self.last(torch.stack([h if r.sum().item() > 0 else 2 * h for h, r in zip(hidden, x, strict=True)]))


class Dropped(nn.Module):
    """Functional dropout that is never turned off."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 3)

    def forward(self, x):
        return self.last(nn.functional.dropout(x, 0.5))


class _Cube(torch.autograd.Function):
    """x^3 with a backward pass that hides that it depends on x."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = x.detach()
        return x**3

    @staticmethod
    def backward(ctx, slope):
        return 3 * ctx.kept.square() * slope


class _OnceCube(torch.autograd.Function):
    """x^3 with a backward pass that cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 3 * ctx.saved_tensors[0].square() * slope


class Cubed(nn.Module):
    def __init__(self, cube):
        super().__init__()
        self.first, self.last, self.cube = nn.Linear(4, 3), nn.Linear(3, 3), cube

    def forward(self, x):
        return self.last(self.cube(self.first(x)))


class Masked(nn.Module):
    """Takes keyword arguments and returns a mapping."""

    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(3, 4), nn.Linear(4, 3)

    def forward(self, input_ids, attention_mask):
        hidden = torch.tanh(self.table(input_ids)) * attention_mask[..., None]
        return {"logits": self.last(hidden.sum(1))}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.last = nn.Embedding(3, 4), nn.Linear(4, 1)

    def forward(self, x):
        return self.last(torch.tanh(self.table(x)) + self.table(x).mean(1, keepdim=True))[..., 0]


def of_tokens(f, y):
    return 0.5 * (f - y).square()


def frozen(module):
    """Return the module with its first layer frozen."""
    module[0].requires_grad_(False)
    return module


def mixed(module):
    """Return the module with running statistics that are not those of its start."""
    generator = torch.Generator().manual_seed(5)
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(1 + 0.3 * torch.rand(buffer.shape, generator=generator))
    return module


def weighted_classes(weight):
    return functools.partial(nn.functional.cross_entropy, weight=weight, reduction="none")


def half_squares(f, y):
    return 0.5 * (f - y).square().flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Cell:
    """A row of the table: how to make the module, its samples and its loss, and a reference of both if torch's is not.

    ``refused`` holds, by measure, or "" for all of them, or NATIVE for those that evaluate the module as it is, in
    float64, the sentence that is expected in the place of numbers.
    """

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (4,)
    loss: Callable = CROSS_ENTROPY
    whole: int = 0  # inputs are whole numbers below this
    squares: bool = False
    tokens: bool = False  # targets are whole numbers as the inputs are
    coarse: bool = False  # some of it is in float32 whatever the weights are
    needs: str = ""  # a library
    reference: Callable[[nn.Module], nn.Module] = field(default=lambda module: module)
    reference_loss: Callable | None = None
    options: dict = field(default_factory=dict)
    wrap: Callable = field(default=lambda x: x)  # the inputs as the module takes them
    refused: dict[str, str] = field(default_factory=dict)


class Hidden(nn.Module):
    """A part of the way from the weights to the losses is hidden from autograd."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, 3), nn.Linear(3, 3), function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def scaled_unseen(hidden):
    with torch.no_grad():
        size = hidden.norm(dim=1, keepdim=True)
    return hidden / size


def gpt_neox():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=5, max_position_embeddings=4, rotary_pct=0.5, **sizes))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=5, n_positions=4, n_embd=4, n_layer=1, n_head=2, n_inner=6))


def bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 6}
    return BertForSequenceClassification(BertConfig(vocab_size=5, max_position_embeddings=4, num_labels=3, **sizes))


def with_mask(ids):
    mask = torch.ones_like(ids)
    mask[::2, -1] = 0
    return {"input_ids": ids, "attention_mask": mask}


def mlp():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def encoder(**kwargs):
    return nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation="gelu", **kwargs)


def attend(layer, x):
    return layer(x, x, x, need_weights=False)[0].mean(1)


MODULES = {
    "MLP": Cell(mlp),
    "CNN with batch norm": Cell(
        lambda: mixed(
            nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.Softplus(), nn.Flatten(), nn.Linear(8, 3))
        ),
        shape=(1, 3, 3),
    ),
    "image to image": Cell(
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Tanh(), nn.Conv2d(2, 1, 1)),
        shape=(1, 5, 5),
        loss=half_squares,
        squares=True,
    ),
    "frozen backbone": Cell(lambda: frozen(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))),
    "inputs in a mapping": Cell(
        Masked, shape=(3,), whole=3, wrap=lambda x: {"input_ids": x, "attention_mask": (x != 1).long()}
    ),
    "loss of parts": Cell(Tagger, shape=(3,), whole=3, loss=of_tokens, squares=True),
    "RNN": Cell(lambda: Last(nn.RNN(2, 3, batch_first=True), 3, lambda r, x: r(x)[0][:, -1]), shape=(3, 2)),
    "LSTM": Cell(lambda: Last(nn.LSTM(2, 3, batch_first=True), 3, lambda r, x: r(x)[0][:, -1]), shape=(3, 2)),
    "GRU": Cell(lambda: Last(nn.GRU(2, 3, batch_first=True), 3, lambda r, x: r(x)[1][0]), shape=(3, 2)),
    "multi-head attention": Cell(lambda: Last(nn.MultiheadAttention(4, 2, batch_first=True), 4, attend), shape=(3, 4)),
    "encoder layer": Cell(lambda: Last(encoder(), 4, lambda e, x: e(x).mean(1)), shape=(3, 4)),
    "tied embedding": Cell(Tied, shape=(2,), whole=3),
    "weight norm": Cell(
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)), nn.Tanh(), nn.Linear(5, 3)),
        reference=WrittenNorm,
    ),
    "class weights in float32": Cell(
        mlp,
        loss=weighted_classes(torch.tensor([0.5, 1.0, 2.0])),
        reference_loss=weighted_classes(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)),
    ),
    "tensors made in forward": Cell(
        Made,
        reference=lambda module: _with_weights(Written(), module),
        refused={NATIVE: "Made cannot evaluate .* mat1 and mat2 must have the same dtype, but got Float and Double"},
    ),
    "branches": Cell(Branches),
    "GPT-NeoX": Cell(
        gpt_neox,
        (4,),
        next_token_loss,
        whole=5,
        tokens=True,
        coarse=True,
        needs="transformers",
    ),
    "GPT-2": Cell(gpt2, (4,), next_token_loss, whole=5, tokens=True, needs="transformers"),
    # Token 0 is its padding and unmasked here: torch gives that row no gradient, so that it never moves in training.
    "BERT": Cell(
        bert,
        (4,),
        whole=5,
        wrap=with_mask,
        needs="transformers",
        refused=dict.fromkeys(
            ("sample", "bayesian_influence", "estimate_learning_coefficient"),
            "the row of 'bert.embeddings.word_embeddings.weight' at padding_idx, which a sampler moves",
        )
        | dict.fromkeys(
            ("hessian_influence", "gauss_newton_influence", "gaussian_learning_coefficient", "unrolled_influence"),
            "torch has it is wrong: along 'bert.embeddings.word_embeddings.weight' .* padding_idx = None shows its row",
        ),
    ),
    "stop-gradient": Cell(
        lambda: Hidden(scaled_unseen),
        refused={"": "the gradient of Hidden is wrong: along 'first.weight', 'first.bias' the losses do not change as"},
    ),
    "rounding": Cell(
        lambda: Hidden(torch.round),
        refused={
            "": "losses of Hidden change with 'first.weight', but autograd's gradient of it is zero .there is round"
        },
    ),
    "functional dropout": Cell(
        Dropped, refused={"": "is random: two evaluations at the same weights differ by .* functional dropout"}
    ),
    "hidden second derivative": Cell(
        lambda: Cubed(_Cube.apply),
        reference=lambda module: _with_weights(Cubed(lambda x: x**3), module),
        refused={
            "hessian_influence": "the Hessian at epoch 3 as torch has it is wrong: along 'first.weight', 'first.bias'",
            "gaussian_learning_coefficient": "the Hessian as torch has it is wrong: along 'first.weight', 'first.bias'",
            "unrolled_influence": "the Hessian at the initial weights as torch has it is wrong: along 'first.weight'",
        },
    ),
    "no second derivative": Cell(
        lambda: Cubed(_OnceCube.apply),
        reference=lambda module: _with_weights(Cubed(lambda x: x**3), module),
        refused={
            "hessian_influence": "the Hessian at epoch 3 as torch has it is wrong: along 'first.weight', 'first.bias'",
            "gaussian_learning_coefficient": "the Hessian as torch has it is wrong: along 'first.weight', 'first.bias'",
            "unrolled_influence": "the Hessian at the initial weights as torch has it is wrong: along 'first.weight'",
        },
    ),
}


def _with_weights(module, other):
    module.load_state_dict(other.state_dict())
    return module


# --- a case: one row in one dtype ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """Two checkpoints of one module, five samples and two other queries."""

    cell: Cell
    checkpoints: ModuleCheckpoints
    samples: Samples
    queries: Samples
    modules: tuple[nn.Module, ...]  # references in float64, one a checkpoint

    def free(self, t):
        return [p for p in self.modules[t].parameters() if p.requires_grad]

    def outputs(self, t, samples, weights=None):
        """Return the outputs, with other weights than those of the checkpoint if given."""
        x, module = samples.inputs, self.modules[t]
        given = {}
        if weights is not None:
            free = {name: p for name, p in module.named_parameters() if p.requires_grad}
            pieces = weights.split([p.numel() for p in free.values()])
            given = {name: piece.view_as(p) for (name, p), piece in zip(free.items(), pieces, strict=True)}
        arguments, keywords = ((), x) if isinstance(x, dict) else ((x.double() if x.is_floating_point() else x,), {})
        with in_double(), sdpa_kernel(SDPBackend.MATH):
            result = torch.func.functional_call(module, given, arguments, keywords)
        if isinstance(result, (dict, tuple)):  # transformers' outputs are both
            return result["logits"]
        return getattr(result, "logits", result)

    def losses(self, t, samples, weights=None):
        y = samples.targets
        loss = self.cell.reference_loss or self.cell.loss
        losses = loss(self.outputs(t, samples, weights), y.double() if y.is_floating_point() else y)
        return losses.mean(1) if losses.ndim == 2 else losses

    def gradients(self, t, samples):
        """Return the gradients (n, d), one sample after the other."""
        rows = []
        for k in range(len(samples)):
            rows.append(_flat(self.losses(t, samples[k : k + 1])[0], self.free(t)))
        return torch.stack(rows).detach().numpy()

    def matrix(self, curvature, t):
        """Return the Hessian or Gauss-Newton matrix by plain autograd, one row after the other."""
        if curvature == "hessian":
            slope = _flat(self.losses(t, self.samples).mean(), self.free(t), create_graph=True)
            return torch.stack([_flat(s, self.free(t)) for s in slope]).numpy()
        total = 0
        for k in range(len(self.samples)):
            one = self.samples[k : k + 1]
            f = self.outputs(t, one)
            jacobian = torch.stack([_flat(value, self.free(t)) for value in f.flatten()])
            leaf = f.detach().requires_grad_()
            y = one.targets.double() if one.targets.is_floating_point() else one.targets
            loss = (self.cell.reference_loss or self.cell.loss)(leaf, y)[0].mean()
            slope = _flat(loss, [leaf], create_graph=True)
            curved = torch.stack([_flat(s, [leaf]) for s in slope])
            total = total + jacobian.T @ curved @ jacobian
        return (total / len(self.samples)).numpy()


@contextmanager
def in_double():
    """Keep float64 where a module asks for float32, as for the angles of rotary embeddings."""
    with mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


def _flat(value, leaves, create_graph=False):
    settings = {"create_graph": create_graph, "retain_graph": True, "materialize_grads": True}
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, leaves, **settings)])


def missing(name):
    """Return what a row needs that is not installed."""
    needs = MODULES[name].needs
    return needs if needs and find_spec(needs) is None else ""


@functools.cache
def make(name, dtype):
    """Return a row of the table in one dtype."""
    cell = MODULES[name]
    torch.manual_seed(3)
    module = cell.make().to(dtype).eval()
    generator = torch.Generator().manual_seed(1)

    def data(n, names=()):
        x = torch.randn(n, *cell.shape, generator=generator)
        x = torch.randint(cell.whole, (n, *cell.shape), generator=generator) if cell.whole else x.to(dtype)
        y = torch.randint(3, (n,), generator=generator)
        if cell.tokens:
            y = torch.randint(cell.whole, (n, *cell.shape), generator=generator)
        return Samples(
            cell.wrap(x), torch.randn(n, *cell.shape, generator=generator).to(dtype) if cell.squares else y, names
        )

    samples, queries = data(5), data(2, ("query-0", "query-1"))
    model = TorchModel(module, cell.loss, **cell.options)
    first = model.initial()
    weights = torch.stack([first, first + 0.3 * torch.randn(len(first), generator=generator).to(dtype)])
    modules = []
    for w in weights:
        copied = copy.deepcopy(cell.reference(copy.deepcopy(module))).double().eval()
        free = [p for p in copied.parameters() if p.requires_grad]
        with torch.no_grad():
            for p, piece in zip(free, w.double().split([p.numel() for p in free]), strict=True):
                p.copy_(piece.reshape(p.shape))
        modules.append(copied)
    return Case(cell, ModuleCheckpoints(np.array([3.0, 7.0]), model, weights), samples, queries, tuple(modules))


# --- measures --------------------------------------------------------------------------------------------------------
# A measure maps a case to numbers; its reference maps the case to what they must be and a bound of the error.


@dataclass(frozen=True, eq=False)
class Measure:
    """A public measure: how the table calls it, and its slow independent reference."""

    compute: Callable[[Case], np.ndarray]
    reference: Callable[[Case], tuple[np.ndarray, np.ndarray]]


def _gradients(case, t):
    """Return gradients of samples and queries, and a bound of the error of their norms.

    An entry is a sum of fewer than 2000 products along the longest path, rounded here and there, of the size of the
    largest entry.
    """
    sources, queries = case.gradients(t, case.samples), case.gradients(t, case.queries)
    size = max(np.abs(sources).max(), np.abs(queries).max(), 1.0)
    return sources, queries, 2000 * EPS * np.sqrt(sources.shape[1]) * size


def kernel_reference(case):
    values, bounds = [], []
    for t in range(2):
        sources, queries, error = _gradients(case, t)
        norms = [np.linalg.norm(g, axis=1) for g in (sources, queries)]
        values.append(sources @ queries.T)
        # dg_i . g_j + g_i . dg_j, and the rounding of a sum of d products on either side.
        rounding = 2 * sources.shape[1] * EPS * np.outer(*norms)
        bounds.append(1.01 * error * np.add.outer(*norms) + rounding)
    return np.stack(values), np.stack(bounds)


def tracin_reference(case):
    """Return the sum over one step of four epochs at rates 0.1 and 0.3 on the mean of five losses: zero, then it."""
    values, bounds = kernel_reference(case)
    rates = np.array([0.1, 0.3])[:, None, None] / 5
    step = -4 * (rates * values).sum(0) / 2
    bound = 4 * (rates * bounds).sum(0) / 2 + 8 * EPS * np.abs(step)
    return np.stack([np.zeros_like(step), step]), np.stack([np.zeros_like(step), bound])


def influence_reference(case, curvature, damping=0.7):
    """Return -(1/N) g_j^T (M + damping)^-1 g_i by a dense solve, and the bound of test_module_influence."""
    values, bounds = [], []
    for t in range(2):
        sources, queries, gradient_error = _gradients(case, t)
        matrix = case.matrix(curvature, t)
        size = len(matrix)
        shifted = matrix + damping * np.eye(size)
        x, y = (np.linalg.solve(shifted, rows.T).T for rows in (sources, queries))
        norm_x, norm_y = np.linalg.norm(x, axis=1), np.linalg.norm(y, axis=1)
        # To first order y^T dM x + dg_j^T x + y^T dg_i; dM also of two backward stable solvers.
        matrix_error = 2000 * EPS * size * np.abs(matrix).max() + 2 * size * EPS * np.linalg.norm(shifted)
        assert matrix_error < 0.1 * np.abs(np.linalg.eigvalsh(shifted)).min()  # higher orders add at most a ninth
        error = matrix_error * np.outer(norm_x, norm_y) + gradient_error * np.add.outer(norm_x, norm_y)
        error += 2 * size * EPS * np.outer(norm_x, np.linalg.norm(queries, axis=1))
        values.append(-x @ queries.T / len(sources))
        bounds.append(10 / 9 * error / len(sources))
    return np.stack(values), np.stack(bounds)


def gaussian_reference(case, n_beta=3.0, localization=200.0, step_size=0.005):
    r"""Return n_beta E[L - L(w*)] of the law that SGLD has on the quadratic around each checkpoint, and a bound.

    Its mean is off by -n_beta A^{-1} g and its covariance (A (1 - step A / 4))^{-1}, A = n_beta H + localization, so
    that the bound is that of errors of H and g carried through inverses of A.
    """
    values, bounds = [], []
    for t in range(2):
        sources, _, gradient_error = _gradients(case, t)
        g, h = sources.mean(0), case.matrix("hessian", t)
        a = n_beta * h + localization * np.eye(len(h))
        least = np.linalg.eigvalsh(a)[0]
        if least <= 0:
            values.append(np.nan)
            bounds.append(0.0)
            continue
        shift = np.linalg.solve(a, n_beta * g)
        spread = np.linalg.inv(a @ (np.eye(len(h)) - step_size * a / 4))
        value = n_beta * (-g @ shift + 0.5 * shift @ h @ shift + 0.5 * np.trace(h @ spread))
        size = n_beta * (abs(g @ shift) + np.linalg.norm(h, 2) * (shift @ shift + np.linalg.norm(spread, "nuc")))
        relative = 2000 * EPS * len(h) * n_beta * np.abs(h).max() / least + gradient_error / np.linalg.norm(g)
        values.append(value)
        bounds.append(4 * relative * size)
    return np.array(values), np.array(bounds)


def _influence(measure, curvature):
    def compute(case):
        return measure(case.samples, case.checkpoints, damping=0.7, queries=case.queries)["influence"].values[0]

    return Measure(compute, functools.partial(influence_reference, curvature=curvature))


MEASURES = {
    "gradient_kernel": Measure(
        lambda case: gradient_kernel(case.samples, case.checkpoints, queries=case.queries).values, kernel_reference
    ),
    "tracin": Measure(
        lambda case: tracin(case.samples, case.checkpoints, lr=[0.1, 0.3], queries=case.queries).values,
        tracin_reference,
    ),
    "hessian_influence": _influence(hessian_influence, "hessian"),
    "gauss_newton_influence": _influence(gauss_newton_influence, "gauss-newton"),
    "gaussian_learning_coefficient": Measure(
        lambda case: (
            gaussian_learning_coefficient(
                case.samples, case.checkpoints, n_beta=3.0, localization=200.0, step_size=0.005
            ).values
        ),
        gaussian_reference,
    ),
}
