"""Simulated users: what they know, what they say, and how a dialogue with them goes."""

SIMULATORS = {
    "rules": "recllm_bench.conversation.rules:RuleSimulator",
    "replay": "recllm_bench.conversation.simulators:ReplaySimulator",
}
