"""Run `sacjax train ENV --out DIR` with PyTorch's initial weights. locomotion.py uses this.

    python benchmarks/pytorch_weights.py ENV --out DIR [options of sacjax train]

torch.nn.Linear draws weights and biases from U(-1/sqrt(I), 1/sqrt(I)) for I inputs. So does
Stable-Baselines3. sacjax, like the SAC authors' code, draws Glorot's uniform weights and sets
biases to 0. An unfinished run in DIR resumes.
"""

import sys
from typing import Any, NamedTuple

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from sacjax import Config, make_sac, mlp, resume, run
from sacjax.cli.commands import settings
from sacjax.cli.flags import parse_train
from sacjax.networks import Networks
from sacjax.types import Algorithm, Env, Key, Params


class PyTorchWeights(NamedTuple):
    """A network with the initial weights and biases of torch.nn.Linear."""

    net: Any

    def init(self, key: Key, *inputs: jax.Array) -> Params:
        """Draw parameters with the shapes of the network's own."""
        params: Any = flatten_dict(self.net.init(key, *inputs))
        keys = jax.random.split(key, len(params))
        drawn: Any = {}
        for key, (path, leaf) in zip(keys, params.items(), strict=True):
            bound = params[*path[:-1], "kernel"].shape[-2] ** -0.5
            drawn[path] = jax.random.uniform(key, leaf.shape, leaf.dtype, -bound, bound)
        return unflatten_dict(drawn)

    def apply(self, params: Params, *inputs: jax.Array) -> Any:
        return self.net.apply(params, *inputs)


def pytorch_weights(config: Config, env: Env) -> Algorithm:
    """Make SAC with these networks and no other change."""
    nets = mlp(config, env.action_size)
    return make_sac(config, env, Networks(*(PyTorchWeights(net) for net in nets)))


def main() -> None:
    args = parse_train(sys.argv[1:])
    config, hp = settings(args)
    if args.out is None:
        sys.exit("--out is missing: use --out DIR")
    if (args.out / "config.json").exists():
        resume(args.out, extend_to=config.total_steps, algorithm=pytorch_weights)
    else:
        run(config, hp, seeds=args.seeds, directory=args.out, algorithm=pytorch_weights)


if __name__ == "__main__":
    main()
