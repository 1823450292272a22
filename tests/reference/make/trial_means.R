# Least-squares means of a trial by nlme::gls and emmeans: Rscript tests/reference/make/trial_means.R
# (in the folder tests/reference); writes trial_means.json. Proportional weights of a model with varIdent are left out:
# emmeans then counts rows by the weights of the variance function, and not as rows.
suppressPackageStartupMessages({library(nlme); library(emmeans); library(jsonlite)})
d <- read.csv(gzfile("data/mmrm200.csv.gz"))
d <- d[!is.na(d$y), ]
d$id <- factor(d$id); d$visit <- factor(d$visit); d$arm <- factor(d$arm, c("placebo", "active"))
d$k <- as.integer(d$visit)
d$sex <- factor(ifelse(as.integer(d$id) %% 3 == 0, "f", "m"))
control <- glsControl(tolerance = 1e-11, msTol = 1e-12, maxIter = 500, msMaxIter = 500, returnObject = TRUE)
us <- gls(y ~ base * visit + arm * visit + sex, d, correlation = corSymm(form = ~ k | id),
          weights = varIdent(form = ~ 1 | visit), control = control)
ar1 <- gls(y ~ base + arm * visit * sex, d, correlation = corAR1(form = ~ k | id), control = control)
table_of <- function(fit, weights) {
  means <- emmeans(fit, ~ arm * visit, weights = weights, mode = "df.error", data = d)
  rows <- as.data.frame(means)
  pairs <- as.data.frame(contrast(means, "revpairwise", by = "visit"))
  list(means = rows[, c("arm", "visit", "emmean", "SE")], differences = pairs[, c("visit", "estimate", "SE")])
}
out <- list(us_equal = table_of(us, "equal"),
            ar1_equal = table_of(ar1, "equal"), ar1_proportional = table_of(ar1, "proportional"))
write_json(out, "trial_means.json", digits = NA, auto_unbox = TRUE)
