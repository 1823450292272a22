# Autocorrelations of residuals by nlme: Rscript tests/reference/make/serial.R
library(nlme)
library(jsonlite)

# In the order of the groups: nlme whitens residuals in that order.
Ovary <- Ovary[order(Ovary$Mare, seq_len(nrow(Ovary))), ]
plain <- lme(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), Ovary, random = ~ 1 | Mare)
ar1 <- gls(follicles ~ sin(2 * pi * Time) + cos(2 * pi * Time), Ovary, correlation = corAR1(form = ~ 1 | Mare),
           control = glsControl(tolerance = 1e-10, msTol = 1e-10))
lags <- function(x) list(lag = x$lag, acf = as.numeric(x$ACF))
out <- list(
  plain = lags(ACF(plain, maxLag = 8)),
  ar1 = lags(ACF(ar1, maxLag = 8, resType = "normalized")),
  ar1_pearson = lags(ACF(ar1, maxLag = 8, resType = "pearson"))
)
write_json(out, "tests/reference/serial.json", digits = NA, auto_unbox = TRUE)
