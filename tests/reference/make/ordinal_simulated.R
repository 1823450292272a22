# Models of categories fitted to simulated data: writes ordinal_simulated.json beside this folder.
#     Rscript tests/reference/make/ordinal_simulated.R
# clm with nominal and scale effects, all links and thresholds; clmm2 with a random intercept; nominal_test; multinom of
# nnet. The cauchit link is left out: clm's log-likelihood of it is .004 from the sum over rows of log differences of
# pcauchy() at its own estimates, which the tests take instead.
suppressPackageStartupMessages({library(jsonlite); library(ordinal); library(nnet)})
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(FALSE), value = TRUE)))
set.seed(20261129); n <- 400; J <- 40
g <- rep(seq_len(J), each = n / J); x <- round(rnorm(n), 3); z <- rbinom(n, 1, .5); f <- sample(c("u", "v", "w"), n, TRUE)
u <- rnorm(J, 0, .8)[g]
latent <- .7 * x + .4 * (f == "v") - .3 * (f == "w") + u + exp(.35 * z) * rlogis(n)
o <- cut(latent, c(-Inf, -2, -.6, .5, 2.2, Inf), labels = FALSE)
eta <- cbind(0, .3 + .5 * x + .6 * (f == "v"), -.2 - .4 * x + .3 * z)
y <- c("A", "B", "C")[apply(eta - log(-log(matrix(runif(3 * n), n))), 1, which.max)]
data <- data.frame(o = o, y = y, x = x, z = z, f = f, g = g)
d <- transform(data, o = ordered(o), f = factor(f), g = factor(g))
out <- list(data = data, models = list())
add <- function(name, m, se) out$models[[name]] <<- list(
  log_likelihood = as.numeric(logLik(m)), coefficients = unname(coef(m)), names = names(coef(m)), std_errors = unname(se))
sharp <- clm.control(gradTol = 1e-10)
for (link in c("logit", "probit", "cloglog", "loglog")) {
  for (kind in c("nominal", "scale", "both")) {
    m <- switch(kind, nominal = clm(o ~ x, nominal = ~ z, data = d, link = link, control = sharp),
                scale = clm(o ~ x + f, scale = ~ z, data = d, link = link, control = sharp),
                both = clm(o ~ f, nominal = ~ x, scale = ~ z, data = d, link = link, control = sharp))
    add(paste("clm", link, kind, "flexible"), m, sqrt(diag(vcov(m))))
  }
}
for (threshold in c("symmetric", "symmetric2", "equidistant")) {
  m <- clm(o ~ x + f, scale = ~ z, data = d, threshold = threshold, control = sharp)
  add(paste("clm logit scale", threshold), m, sqrt(diag(vcov(m))))
}
for (kind in c("nominal", "both")) {
  scale <- if (kind == "both") ~ z else ~ 1
  m <- clmm2(o ~ x, nominal = ~ z, scale = scale, random = g, data = d, link = "probit", nAGQ = 10, Hess = TRUE,
             control = clmm2.control(grtol = 1e-9))
  add(paste("clmm2 probit", kind, "flexible"), m, sqrt(diag(vcov(m))))
  out$models[[paste("clmm2 probit", kind, "flexible")]]$sd <- m$stDev
}
for (link in c("logit", "probit")) {
  test <- as.data.frame(nominal_test(clm(o ~ x + f + z, data = d, link = link)))
  out$nominal_test[[link]] <- list(terms = rownames(test)[-1], chi2 = test$LRT[-1], df = test$Df[-1])
}
test <- as.data.frame(nominal_test(clm(o ~ x + f, scale = ~ z, data = d)))
out$nominal_test$scale <- list(terms = rownames(test)[-1], chi2 = test$LRT[-1], df = test$Df[-1])
m <- multinom(y ~ x + f + z, data = d, trace = FALSE, reltol = 1e-15, abstol = 1e-15, maxit = 1000)
out$multinom <- list(log_likelihood = as.numeric(logLik(m)), coefficients = c(t(coef(m))),
                     std_errors = c(t(summary(m)$standard.errors)))
write(toJSON(out, digits = 12, auto_unbox = TRUE), file.path(here, "..", "ordinal_simulated.json"))
