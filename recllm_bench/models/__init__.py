"""Every model of the bench by name, and the rows that stand beside a model where its recipe names none."""

MODELS = {
    "sasrec": "recllm_bench.models.sequence.sasrec:SASRec",
    "iclrec": "recllm_bench.models.sequence.iclrec:ICLRec",
    "latentcrs": "recllm_bench.models.latentcrs.method:LatentCRSMethod",
    "relrec": "recllm_bench.models.relrec.method:ReLRecMethod",
    "llama2-seq": "recllm_bench.models.relrec.method:LlamaSeqMethod",
    "cesrec": "recllm_bench.models.cesrec.method:CESRecMethod",
    "zero-shot": "recllm_bench.models.systems.zero_shot:ZeroShotMethod",
    "chat-rec": "recllm_bench.models.systems.chat_rec:ChatRecMethod",
    "interecagent": "recllm_bench.models.systems.interecagent:InteRecAgentMethod",
    "asking": "recllm_bench.models.asking:AskingMethod",
    "text-retrieval": "recllm_bench.models.text_retrieval:TextRetrievalMethod",
    "recent-knn": "recllm_bench.models.recent_knn:RecentKNNMethod",
    "words-fit": "recllm_bench.models.controls.fitting:WordsFitMethod",
    "facts-fit": "recllm_bench.models.controls.fitting:FactsFitMethod",
    "text-fused": "recllm_bench.models.controls.fused:TextFusedMethod",
}
ABOUT = {
    "sasrec": "Transformer over a user's items, trained with cross-entropy; this bench's own",
    "iclrec": "SASRec's encoder, contrasted with other views of a history and with intents of users",
    "latentcrs": "latent intents that join what a user did with what the user says; reads words",
    "relrec": "a frozen language model that learns vectors of items and users, and writes their labels",
    "llama2-seq": "a frozen language model that learns vectors of items alone",
    "cesrec": "a remark makes a language model rewrite a user's history, which a recommender then reads; reads words",
    "zero-shot": "a chat model is asked for titles, from the history and the words, without training; reads words",
    "chat-rec": "a chat model orders the candidates of a recommender by what was said; reads words",
    "interecagent": "a chat model plans tools over the catalogue and a recommender; reads words",
    "asking": "asks about an attribute while that tells more than recommending, over any recommender; reads words",
    "text-retrieval": "items whose text is nearest to what the user says; nothing is trained; reads words",
    "recent-knn": "items that the same users had as the newest ones of a history; nothing is trained",
    "words-fit": "a control: the order of a history-only row, items that fit the words first; reads words",
    "facts-fit": "a ceiling: as words-fit, but told the facts behind the words",
    "text-fused": "a control: the scores of text-retrieval and a history-only row, added; reads words",
}
"""A line about each; one that is not here is told by the first line of its class's docstring."""
HISTORY_ROWS = ("pop", "recbole:SASRec", "GRU4Rec", "sasrec", "iclrec", "recent-knn")
"""Baselines that see histories alone."""
WORD_ROWS = ("text-retrieval", "words-fit", "facts-fit", "text-fused")
"""What the words are worth without the method: controls beside every model that reads them."""
CONTROL_OPTIONS = {"cesrec": "edit"}
"""Option of a model that, once it is set, makes a row of the model a control."""
COMPARED_OPTIONS: dict[str, dict[str, object]] = {"cesrec": {"early_accept": False}}
"""What is set in the row of a model that is compared with rows that hear no words."""
CEILINGS = ("facts-fit",)
"""Controls that are handed the facts behind the words; no system could be."""
DIALOGUE_PROTOCOL = "latentcrs.multi_turn"
"""How dialogues are held beside a ranking whose own protocol has no turns."""
PUBLISHED = {
    "cesrec": "recllm_bench.models.cesrec.published:TABLES",
    "latentcrs": "recllm_bench.models.latentcrs.published:TABLES",
    "relrec": "recllm_bench.models.relrec.published:TABLES",
}
"""The printed tables of each paper."""
