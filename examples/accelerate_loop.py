"""`step` under Accelerate: several processes, mixed precision, accumulation. Start it with `accelerate launch`."""

from functools import partial

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch.utils.data import DataLoader

from contraverse import SCAL, EncodedText, TextData, TextModel, step
from contraverse.data import Collator

texts = ["Where is my parcel?", "It has not come yet.", "I want my money back.", "Please refund me."] * 10
labels = ["delivery", "delivery", "refund", "refund"] * 10
data = TextData.from_rows(texts, labels)

# A method need not use every weight of an encoder (its own pooler, say): without this, DDP would wait for them.
unused = DistributedDataParallelKwargs(find_unused_parameters=True)
accelerator = Accelerator(gradient_accumulation_steps=2, kwargs_handlers=[unused])
model = TextModel.from_pretrained("minilm", labels=data.label_names)
method = SCAL(epsilon=0.3, alpha=0.1)
model.add_heads(method.heads)
rows = EncodedText(data, model.tokenizer, model.max_length)
loader = DataLoader(rows, batch_size=8, shuffle=True, collate_fn=Collator(model.tokenizer))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

model.train()
for epoch in range(2):
    for batch in loader:
        with accelerator.accumulate(model):
            no_sync = partial(accelerator.no_sync, model)
            parts = step(method, model, batch, backward=accelerator.backward, no_sync=no_sync)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    accelerator.print(epoch, {name: round(value.item(), 3) for name, value in parts[-1].items()})

accelerator.unwrap_model(model).save("runs/accelerate/model")
