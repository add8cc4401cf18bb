"""Train a sentence encoder with a method for images: ACL's two streams, where dropout makes the views."""

from contraverse import TextData, TextModel, Trainer
from contraverse.methods import DualStream

sentences = [
    "Where is my parcel?", "It has not come yet.", "The courier left it at the wrong door.", "When will you send it?",
    "I want my money back.", "Please refund me.", "You charged my card twice.", "The price was lower yesterday.",
    "The screen is cracked.", "It does not switch on.", "A part is missing.", "How do I change the battery?",
]  # fmt: skip

model = TextModel.from_pretrained("minilm", pooling="mean")
method = DualStream(norm="l2", epsilon=0.3, step_size=0.1, steps=3)  # L2, over the word embeddings of a sentence
data = TextData.from_rows(sentences)
Trainer(model, method, data, output_dir="runs/acl", num_train_epochs=10, learning_rate=3e-5).train()
vectors = model.encode(["My parcel never came.", "Give me my money back."])
print(vectors.shape)
model.save("runs/acl/model")  # SentenceTransformer("runs/acl/model") gives the same vectors
