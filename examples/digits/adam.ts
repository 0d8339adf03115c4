// The optimizer: Adam (Kingma and Ba, 2015) with its usual constants. One call is one update, a "step" in the reports.

const BETA1 = 0.9;
const BETA2 = 0.999;
const EPSILON = 1e-8;

/**
 * The returned function divides `gradient`, a sum over `samples` samples, by their number, moves `parameters`, and sets
 * `gradient` to 0 for the next sum.
 */
export function createAdam(parameters: Float32Array, gradient: Float32Array): (lr: number, samples: number) => void {
  const mean = new Float32Array(parameters.length);
  const square = new Float32Array(parameters.length);
  let step = 0;
  return (lr, samples) => {
    step++;
    const meanShare = 1 - BETA1 ** step;
    const squareShare = 1 - BETA2 ** step;
    for (let i = 0; i < parameters.length; i++) {
      const slope = gradient[i]! / samples;
      const m = (mean[i] = BETA1 * mean[i]! + (1 - BETA1) * slope);
      const v = (square[i] = BETA2 * square[i]! + (1 - BETA2) * slope * slope);
      parameters[i]! -= (lr * m) / meanShare / (Math.sqrt(v / squareShare) + EPSILON);
    }
    gradient.fill(0);
  };
}
