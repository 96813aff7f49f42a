#ifndef SEMVQ_CORE_CONFIG_TESTDATA_TEST_PLUGINS_H_
#define SEMVQ_CORE_CONFIG_TESTDATA_TEST_PLUGINS_H_

#include <string>
#include <vector>

#include "core/config/source.h"

namespace semvq {

// A valid experiment of the test plugins, one setting a line.
std::string BaseText();

// `text` with its only occurrence of `from` replaced; fails the test otherwise.
std::string Replaced(std::string text, const std::string& from,
                     const std::string& to);

// The report on `sources`: what was loaded, its stages, their contracts.
std::string Report(const std::vector<SourceText>& sources);

// The line (from 1) in `text` that holds `what` for the first time.
int LineOf(const std::string& text, const std::string& what);

}  // namespace semvq

#endif  // SEMVQ_CORE_CONFIG_TESTDATA_TEST_PLUGINS_H_
