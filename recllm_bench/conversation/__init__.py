"""Simulated users: what they know, what they say, and how a dialogue with them goes."""

SIMULATORS = {
    "rules": "recllm_bench.conversation.people:People",
    "taste": "recllm_bench.conversation.people:Taste",
    "local": "recllm_bench.conversation.chatting:Chatting",
    "server": "recllm_bench.conversation.chatting:Chatting",
    "replay": "recllm_bench.conversation.simulators:ReplaySimulator",
}
