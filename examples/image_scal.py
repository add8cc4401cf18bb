"""Train on your own images with a method for texts, SCAL, and measure accuracy under attack on the pixels."""

import numpy as np

from contraverse import SCAL, ImageData, ImageModel, Trainer, evaluate

random = np.random.default_rng(0)
labels = np.arange(160) % 2
images = random.integers(0, 220, (160, 16, 16, 3))  # N x height x width x colours, 0 to 255
images[labels == 1, 4:12, 4:12] += 35  # of the second class, the middle is lighter

train, test = ImageData.from_arrays(images, labels, ["plain", "lit"]).split(0.25, seed=0)
model = ImageModel.from_pretrained("resnet8", labels=train.label_names)
method = SCAL(epsilon=0.5, alpha=0.1)  # L2, over all pixels of an image
Trainer(model, method, train, output_dir="runs/images", num_train_epochs=10, learning_rate=1e-3).train()
print(evaluate(model, test, norm="linf", epsilons=[8 / 255]))
model.save("runs/images/model")
