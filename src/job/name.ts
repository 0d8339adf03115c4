// Readable random names, e.g. `brave-otter`, for jobs without a name in their spec. They need not
// be unique.
import { randomInt } from 'node:crypto';

const adjectives =
  'able agile amber azure bold brave brief bright brisk calm candid clear clever coral cosmic crisp daring deft eager early fair fast fine fleet fresh gentle glad golden grand hardy honest humble ivory jolly keen kind lively lucid lucky lunar mellow mighty misty modest neat nimble noble olive patient plain polite proud quick quiet rapid ready regal rosy rustic scarlet sharp silent silver sleek smart solar solid spry stable steady stellar sturdy subtle sunny swift tidy topaz vivid warm wise witty zesty';
const animals =
  'ant badger bat bear beaver bee bison boar bobcat buck camel cat cheetah cobra condor coyote crab crane cricket crow deer dingo dolphin dove dragonfly duck eagle eel egret elk falcon ferret finch fox frog gazelle gecko goat goose grouse gull hare hawk heron hornet horse ibex ibis jackal jaguar jay kite kiwi koala lark lemur leopard lion lizard llama lynx magpie marlin marten mole moose moth mule newt ocelot octopus orca osprey otter owl ox panda parrot pelican penguin pigeon pike pony puffin puma quail rabbit ram raven robin salmon seal shark sheep shrew skunk snail sparrow squid stork swan tapir tern tiger toad trout turtle viper vole walrus wasp weasel whale wolf wombat wren yak zebra';

export function randomName(): string {
  return `${pick(adjectives)}-${pick(animals)}`;
}

function pick(words: string): string {
  const all = words.split(' ');
  return all[randomInt(all.length)] ?? '';
}
