"""`step` in a loop of your own: a method, a model, an optimizer, and nothing else."""

import torch
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from contraverse import SCAL, EncodedText, TextData, TextModel, step
from contraverse.data import Collator

texts = ["Where is my parcel?", "It has not come yet.", "I want my money back.", "Please refund me."] * 10
labels = ["delivery", "delivery", "refund", "refund"] * 10
data = TextData.from_rows(texts, labels)

model = TextModel.from_pretrained("minilm", labels=data.label_names)
method = SCAL(epsilon=0.3, alpha=0.1)
model.add_heads(method.heads)  # before the optimizer is made, which would not see them otherwise
rows = EncodedText(data, model.tokenizer, model.max_length)
loader = DataLoader(rows, batch_size=8, shuffle=True, collate_fn=Collator(model.tokenizer))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

model.train()
for epoch in range(2):
    for batch in loader:
        parts = step(method, model, batch, backward=torch.Tensor.backward)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    print(epoch, {name: round(value.item(), 3) for name, value in parts[-1].items()})
