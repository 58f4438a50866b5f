// RLtools' SAC on its own C++ Pendulum. rltools_sac.py compiles and starts it, and sets PEER_*.
//
// Without an argument, it runs a piece after the warm-up and prints the line `ready`. For each line
// on its input, it runs another piece and prints its seconds. With an argument, it runs one piece
// and prints its seconds and the returns of ten greedy episodes.
#include <rl_tools/operations/cpu_mux.h>
// The order matters: operations on parameters come before operations on layers.
#include <rl_tools/nn/optimizers/adam/instance/operations_generic.h>
#include <rl_tools/nn/operations_cpu_mux.h>
#include <rl_tools/nn/layers/sample_and_squash/operations_generic.h>
#include <rl_tools/nn_models/mlp/operations_generic.h>
#include <rl_tools/nn_models/random_uniform/operations_generic.h>
#include <rl_tools/nn_models/sequential/operations_generic.h>
#include <rl_tools/nn/optimizers/adam/operations_generic.h>
#include <rl_tools/rl/environments/pendulum/operations_cpu.h>
#include <rl_tools/rl/algorithms/sac/loop/core/config.h>
#include <rl_tools/rl/algorithms/sac/loop/core/operations_generic.h>
#include <rl_tools/rl/loop/steps/evaluation/config.h>
#include <rl_tools/rl/loop/steps/evaluation/operations_generic.h>

#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

namespace rlt = rl_tools;
namespace sac = rlt::rl::algorithms::sac;
namespace evaluation = rlt::rl::loop::steps::evaluation;

using Device = rlt::devices::DEVICE_FACTORY<>;
using Index = Device::index_t;
using Types = rlt::numeric_types::Policy<float>;
using Pendulum = rlt::rl::environments::Pendulum<
    rlt::rl::environments::pendulum::Specification<float, Index>>;

constexpr Index WARMUP_STEPS = PEER_WARMUP, PIECE = PEER_ITERATIONS, EPISODES = 10;

struct Parameters : sac::loop::core::DefaultParameters<Types, Index, Pendulum> {
    struct SAC_PARAMETERS : sac::DefaultParameters<Types, Index, Pendulum::ACTION_DIM> {
        static constexpr float GAMMA = PEER_GAMMA;
        static constexpr float ACTOR_POLYAK = 1 - PEER_TAU;
        static constexpr float CRITIC_POLYAK = 1 - PEER_TAU;
        static constexpr Index ACTOR_BATCH_SIZE = PEER_BATCH;
        static constexpr Index CRITIC_BATCH_SIZE = PEER_BATCH;
        static constexpr float ALPHA = 1;  // initial temperature
    };
    struct Adam : rlt::nn::optimizers::adam::DEFAULT_PARAMETERS_PYTORCH<Types> {
        static constexpr float ALPHA = PEER_LEARNING_RATE;
    };
    using ACTOR_OPTIMIZER_PARAMETERS = Adam;
    using CRITIC_OPTIMIZER_PARAMETERS = Adam;
    using ALPHA_OPTIMIZER_PARAMETERS = Adam;
    static constexpr Index N_WARMUP_STEPS = WARMUP_STEPS;
    static constexpr Index N_WARMUP_STEPS_CRITIC = WARMUP_STEPS;
    static constexpr Index N_WARMUP_STEPS_ACTOR = WARMUP_STEPS;
    static constexpr Index STEP_LIMIT = 1'000'000'000;
    static constexpr Index REPLAY_BUFFER_CAP = PEER_REPLAY;
    static constexpr Index ACTOR_HIDDEN_DIM = PEER_HIDDEN;
    static constexpr Index CRITIC_HIDDEN_DIM = PEER_HIDDEN;
    static constexpr Index ACTOR_NUM_LAYERS = PEER_LAYERS + 1;  // plus the output layer
    static constexpr Index CRITIC_NUM_LAYERS = PEER_LAYERS + 1;
};

using Core = sac::loop::core::Config<
    Types, Index, Device::SPEC::RANDOM::ENGINE<>, Pendulum, Parameters>;

// It evaluates at step 0, which costs almost nothing, and after one piece. Later ones do not.
struct Evaluations : evaluation::Parameters<Types, Index, Core, EPISODES> {
    static constexpr Index EVALUATION_INTERVAL = WARMUP_STEPS + PIECE;
    static constexpr Index N_EVALUATIONS = 2;
};
using Config = evaluation::Config<Core, Evaluations>;

Device device;
Config::State<Config> state;

double train(Index steps) {
    const auto start = std::chrono::steady_clock::now();
    for (Index i = 0; i < steps; i++) rlt::step(device, state);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int main(int count, char**) {
    rlt::malloc(device, state);
    rlt::init(device, state, 0);
    train(WARMUP_STEPS);
    const double seconds = train(PIECE);
    if (count > 1) {
        train(1);  // begins with the evaluation
        std::printf("%.9g", seconds);
        for (float value : rlt::get(state.evaluation_results, 0, 1).returns)
            std::printf(" %.9g", value);
        std::printf("\n");
        return 0;
    }
    train(1);
    std::printf("ready\n");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        std::printf("%.9g\n", train(PIECE));
        std::fflush(stdout);
    }
}
