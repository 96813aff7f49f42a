#include "trainer/run.h"

int main(int argc, char** argv) {
  return semvq::RunTrainer(std::vector<std::string>(argv, argv + argc));
}
